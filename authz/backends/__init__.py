"""Which Ollama servers there are, and what each of them can serve."""
