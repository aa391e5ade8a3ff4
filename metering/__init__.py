"""The bill: what the journal says ran is settled in Postgres, then in Redis, once."""
