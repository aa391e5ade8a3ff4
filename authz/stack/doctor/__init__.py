"""Judge a running deployment: each module gathers facts of one part, and a pure function judges them."""
