"""The decision: who may send what to which backend, and how a refusal reads."""
