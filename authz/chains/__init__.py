"""Tamper evidence: the hash chains of the ledger and the audit, checked by what is not in the database."""
