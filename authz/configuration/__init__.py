"""What may be set, where each value comes from, and all that is wrong with it."""
