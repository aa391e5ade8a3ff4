"""Redis, all of it: the scripts, the connection, and the limiter that runs them."""
