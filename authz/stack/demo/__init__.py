"""A backend for those who try the gateway without an Ollama: its routes and streams, without a model.

Nothing is kept between two requests.
"""
