-- migrate:up

-- The commands show what was learned, and have it learned anew.
GRANT SELECT, DELETE ON learned_figures TO gateway_admin;

-- migrate:down

REVOKE SELECT, DELETE ON learned_figures FROM gateway_admin;
