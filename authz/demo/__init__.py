"""The built-in demo backend: Ollama's HTTP shapes over scripted tokens, with a tally of the truth.

It serves a first `up` without a real Ollama, and the tests, which compare bills with its tally.
"""
