"""Resolve a secret to the tenant and key it belongs to."""
