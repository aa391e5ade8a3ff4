"""Decide about one request: pure rules first, then the limiter."""
