"""The decision: who may send what to which backend, and in which words a client hears no."""
