"""Fire real requests at every rule of a running deployment, as a throw-away tenant, and judge the answers."""
