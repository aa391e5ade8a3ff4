# Every recipe runs as `uv run just RECIPE`, which puts the project's programs on the PATH.

set dotenv-load

go := "python -m authz.stack.build go"
caddy := "python -m authz.stack.build caddy"
lock := "uv export --quiet --no-emit-project --no-annotate --no-header --all-groups --extra embedded"

# List the recipes
default:
    @just --list --unsorted

# Start the whole gateway on this machine (see `neuronetz-gateway up --help`)
up *arguments:
    @neuronetz-gateway up {{ arguments }}

# Stop it again
down *arguments:
    @neuronetz-gateway down {{ arguments }}

# Run every test, Go and Python, with real Postgres, Redis and Caddy
test *arguments: test-go
    @{{ caddy }} version
    pytest {{ arguments }}

# Run the tests of the Caddy modules
test-go *arguments:
    {{ go }} test -timeout 300s ./... {{ arguments }}

# Break a whole gateway under load for 7 minutes, and compare every book afterwards
chaos *arguments:
    @{{ caddy }} version
    python -m tests.chaos.chaos {{ arguments }}

# Measure what a decision costs authz, beside redis-py's own pool
bench-verify *arguments:
    python -m tests.bench.bench_verify {{ arguments }}

# Measure how fast metering settles, and what it needs for that
bench-metering *arguments:
    python -m tests.bench.bench_metering {{ arguments }}

# Check style, types, imports, known dangers and pins
check: check-python check-go check-lock

# Check the Python code
check-python:
    ruff check
    ruff format --check
    mypy
    lint-imports
    bandit --quiet --severity-level medium --recursive --configfile pyproject.toml authz metering sql

# Check the Go code and the Caddyfile
check-go:
    {{ go }} vet ./...
    python -m authz.stack.build gofmt -l . | (! grep .)
    {{ caddy }} fmt Caddyfile > /dev/null

# Check that requirements.lock says what pyproject.toml asks for
check-lock:
    {{ lock }} | diff requirements.lock -

# Write requirements.lock anew, with the newest versions that pyproject.toml allows
lock:
    uv lock --upgrade
    {{ lock }} --output-file requirements.lock

# Format everything
fmt:
    ruff check --fix
    ruff format
    python -m authz.stack.build gofmt -w .
    {{ caddy }} fmt --overwrite Caddyfile
