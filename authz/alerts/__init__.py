"""Alerts: the few events that need a person, each posted once to GATEWAY_ALERT_URL."""
