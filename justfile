# Every recipe runs as `uv run just RECIPE`, which puts the project's programs on the PATH.

set dotenv-load
# Arguments reach a program as they were given, paths with spaces too.
set positional-arguments

go := "python -m authz.stack.build go"
caddy := "python -m authz.stack.build caddy"
go_tool := go + " tool -modfile=tools/go.mod"
# The lock is for every Python and machine at once; pins that it has are kept where they still fit.
lock := "uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra embedded --extra parquet --group test --group check --group conformance --group run --group image pyproject.toml"

# List the recipes
default:
    @just --list --unsorted

# Start the whole gateway on this machine (see `neuronetz-gateway up --help`)
up *arguments:
    @neuronetz-gateway up "$@"

# Start the whole gateway, and replace authz and metering whenever their code changes
dev *arguments:
    @neuronetz-gateway up --reload "$@"

# Stop it again
down *arguments:
    @neuronetz-gateway down "$@"

# Bring the database up to date (see `neuronetz-gateway migrate --help`)
migrate *arguments:
    @neuronetz-gateway migrate "$@"

# Run every test, Go and Python, with real Postgres, Redis and Caddy
test *arguments: test-go
    @{{ caddy }} version
    coverage erase
    coverage run -m pytest "$@"

# Write both wheels to dist, the same bytes each time; Caddy is for Linux, or for platforms named, such as macos-arm64
wheel *platforms:
    python -m authz.stack.wheels dist "$@"

# Report the branch coverage of the last complete `just test`; its floor in pyproject.toml only rises
coverage:
    coverage report

# Run the tests of the Caddy modules
test-go *arguments:
    {{ go }} test -timeout 300s ./... "$@"

# Run them with the race detector, which needs a C compiler: gcc, or Zig's where there is none
test-go-race *arguments:
    eval "$({{ go }} env | sed 's/^/export /')" && cd caddy && command -v gcc > /dev/null || \
        export CC="uvx --quiet --from ziglang==0.17.1 python-zig cc"; \
        CGO_ENABLED=1 "$GOROOT/bin/go" test -race -timeout 600s ./... "$@"

# Feed the fuzz targets of a package with random input for a while; `.` compiles all of Caddy anew for it
fuzz package="./internal/jsonstream" time="10s":
    {{ go }} test -list '^Fuzz' {{ package }} | grep ^Fuzz | while read -r target; do \
        {{ go }} test -run '^$' -fuzz "^$target\$" -fuzztime {{ time }} {{ package }} < /dev/null || exit 1; done

# Install Chromium by Debian's or Ubuntu's packages, where there is no browser for the tests of web pages
browser:
    #!/usr/bin/env bash
    set -euo pipefail
    for program in chromium chromium-browser google-chrome; do
        if command -v "$program" > /dev/null; then exit 0; fi
    done
    as_root=$([[ $EUID = 0 ]] || echo sudo)
    $as_root apt-get update --quiet --quiet
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install --quiet --quiet --yes --no-install-recommends chromium

# Compare the gateway with the real Ollama, which is built at first: bytes, usage, clients, prompt bounds
conformance *arguments: browser
    @{{ caddy }} version
    @python -m tests.ollama.build
    pytest tests/conformance "$@"

# Install client programs and run each of the real Ollama itself and through the gateway: all, or those named
clients *programs:
    @{{ caddy }} version
    @python -m tests.ollama.build
    python -m tests.clients.clients "$@"

# Run compose.yaml and compose.dev.yaml with a real engine, for 15 minutes: it takes the ports 80, 443 and 8080
compose-test *arguments:
    @python -m tests.ollama.build
    pytest -x tests/compose/engine "$@"

# Print the images of compose.yaml with the digests that their tags have now, as lines of .env
images:
    #!/usr/bin/env bash
    set -euo pipefail
    neuronetz-gateway settings --json | python -c '
    import json, sys
    for each in json.load(sys.stdin)["settings"]:
        if each["setting"].endswith("_IMAGE"):
            print(each["setting"], each["value"])' | while read -r name image; do
        digest=$(docker buildx imagetools inspect --format '{{{{.Manifest.Digest}}' "${image%@*}")
        echo "$name=${image%@*}@$digest"
    done

# Run what depends on the time 400 days ahead, with a month that ends during each test
test-shifted *arguments:
    python -m tests.clock.shifted "$@"

# Break a whole gateway under load for 7 minutes, and compare every book afterwards
chaos *arguments:
    @{{ caddy }} version
    @python -m tests.ollama.build
    python -m tests.chaos.chaos "$@"

# Two gateways and their stores on machines of their own lose one part after the other; needs root
scale-test *arguments:
    @{{ caddy }} version
    python -m tests.scale.scale "$@"

# Use a whole gateway for 20 minutes, and see that its memory stays and its bill is Ollama's
soak *arguments:
    @{{ caddy }} version
    @python -m tests.ollama.build
    python -m tests.chaos.soak "$@"

# Explore the protocol between all parts, every order of events: a world, a rule taken away, or all
model *arguments:
    python -m tests.model.protocol "$@"

# Make every attack of tests/security/cases, and every spelling of a mutation path; exits 1 if one succeeds
attack:
    @{{ caddy }} version
    @python -m tests.security.attack

# Make the same attacks on a stock forward_auth, and print how many cases it passes
attack-compare:
    @{{ caddy }} version
    @python -m tests.security.compare

# Let one tenant try for an hour to move what others pay or may use; exits 1 if anything of theirs changes
hostile-tenant *arguments:
    @{{ caddy }} version
    @python -m tests.ollama.build
    python -m tests.security.hostile_tenant "$@"

# Let a stranger do for a minute what can be done without an account, while a client streams
stranger *arguments:
    @{{ caddy }} version
    @python -m tests.ollama.build
    python -m tests.security.stranger "$@"

# Measure a client's answers beside 10,000 idle and slow connections: 12 blocks take 4 minutes
idle *arguments:
    @{{ caddy }} version
    @python -m tests.ollama.build
    python -m tests.security.idle "$@"

# Measure what the gateway adds and costs beside a stock forward_auth: 12 blocks take 35 minutes
bench *arguments:
    @{{ caddy }} version
    @python -m tests.bench.bench "$@"

# Measure another gateway the same way, by its URL; its backend must be the mock (see `just bench --help`)
bench-peers url *arguments:
    @{{ caddy }} version
    @python -m tests.bench.bench --peer "$@"

# Measure what a decision costs authz, beside redis-py's own pool
bench-verify *arguments:
    python -m tests.bench.bench_verify "$@"

# Measure what keeping prompts costs, in CPU time of the whole gateway
bench-prompts *arguments:
    python -m tests.bench.bench_prompts "$@"

# Measure how fast metering settles, and what it needs for that
bench-metering *arguments:
    python -m tests.bench.bench_metering "$@"

# Measure how soon a tenant with 100,000 keys is back after a loss of Redis, and what others notice of that
bench-rebuild *arguments:
    python -m tests.bench.bench_rebuild "$@"

# Measure what a request costs with 100,000 keys, 300 models, ten million rows and prompts of 1 MiB: 20 minutes
bench-growth *arguments:
    @{{ caddy }} version
    python -m tests.bench.bench_growth "$@"

# Measure what a ledger of ten million rows on hundreds of days costs: it takes 10 minutes and 5 GB
bench-years *arguments:
    python -m tests.bench.bench_years "$@"

# Verify a ledger of ten million rows, and find what is altered in it by hand: it takes half an hour and 8 GB
audit-scale *arguments:
    python -m tests.bench.audit_scale "$@"

# Measure how near the bounds of honest prompts are to their tokens, by published vocabularies, and MB/s
bench-bound:
    uv run --quiet --isolated --group vocabularies python -m tests.bound.bench

# Look for texts with more tokens than their bound; arguments: how many, a seed, `tokenizers` or `llama.cpp`
bound-search *arguments:
    uv run --quiet --isolated --group vocabularies python -m tests.bound.search "$@"

# Check style, types, imports, known dangers, pins and the wheel
check: check-python check-go check-cross check-words check-lock check-platforms check-wheel check-audit check-vuln

# Check the style of the Python code
lint:
    ruff check
    ruff format --check

# Check the types of the Python code, tests too
typecheck:
    mypy

# Check the Python code
check-python: lint typecheck
    lint-imports
    bandit --quiet --severity-level medium --recursive --configfile pyproject.toml authz metering sql

# Check the Go code and the Caddyfile
check-go:
    {{ go }} vet ./...
    {{ go_tool }} golangci-lint run
    {{ caddy }} fmt Caddyfile 2> /dev/null | diff --unified caddy/Caddyfile -
    python -m tests.ollama.build go vet ./...
    python -m tests.ollama.build gofmt -l . | (! grep .)
    {{ go }} vet -C ../tests/bench/load ./...
    python -m authz.stack.build gofmt -l ../tests/bench/load | (! grep .)

# Check that the Caddy modules compile for another machine, such as darwin/arm64
check-cross os="linux" arch="arm64":
    GOOS={{ os }} GOARCH={{ arch }} {{ go }} build -o /dev/null ./cmd/caddy

# Check the Go code for known vulnerabilities; GATEWAY_CHECKS_STRICT=1 makes a check that can't be made fail
check-vuln:
    #!/usr/bin/env bash
    report=$({{ go_tool }} govulncheck ./... 2>&1) && code=0 || code=$?
    echo "$report"
    if [[ $code = 1 && $report == *"fetching vulnerabilities"* ]]; then
        echo "govulncheck: NOTHING WAS CHECKED, no advisory database could be reached" >&2
        exit "${GATEWAY_CHECKS_STRICT:-0}"
    fi
    exit $code

# Check that requirements.lock says what pyproject.toml asks for
check-lock:
    #!/usr/bin/env bash
    set -euo pipefail
    copy=$(mktemp)
    trap 'rm "$copy"' EXIT
    cp requirements.lock "$copy"
    {{ lock }} --output-file "$copy"
    diff requirements.lock "$copy"

# Check that every pinned package has a wheel for each Python and machine that pyproject.toml names
check-platforms:
    #!/usr/bin/env bash
    set -euo pipefail
    folder=$(mktemp -d)
    trap 'rm -r "$folder"' EXIT
    for python in 3.11 3.12 3.13 3.14; do
        for machine in x86_64 aarch64; do
            uv pip install --quiet --dry-run --target "$folder" --only-binary :all: --require-hashes \
                --python-version "$python" --python-platform "$machine-unknown-linux-gnu" \
                --requirements requirements.lock
        done
    done

# Check the spelling in every file that is ours to spell
check-words:
    git ls-files -z --cached --others --exclude-standard | xargs -0 codespell

# Check that no pinned Python package has a known vulnerability
check-audit *arguments:
    #!/usr/bin/env bash
    set -uo pipefail
    if answer=$(pip-audit --requirement requirements.lock --require-hashes --disable-pip \
        --vulnerability-service osv --progress-spinner off "$@" 2>&1); then
        echo "$answer"
    elif grep -qE 'requests\.exceptions\.|vulnerability feed|interface\.ServiceError' <<< "$answer"; then
        echo 'pip-audit: no advisory database could be reached, nothing was checked' >&2
        [ "${GATEWAY_CHECKS_STRICT:-0}" != 1 ]
    else
        echo "$answer"
        exit 1
    fi

# Check that the wheel holds each file of the packages: Python, SQL, Lua and the mark of their types
check-wheel:
    #!/usr/bin/env bash
    set -euo pipefail
    folder=$(mktemp -d)
    trap 'rm -r "$folder"' EXIT
    uv build --quiet --wheel --out-dir "$folder"
    git ls-files --cached --others --exclude-standard authz metering sql | LC_ALL=C sort > "$folder/expected"
    python -m zipfile --list "$folder"/*.whl | grep -oE '^(authz|metering|sql)/[^ ]+' \
        | LC_ALL=C sort | diff "$folder/expected" -

# Check the units of systemd with systemd's own programs, which must be installed
check-units:
    @python -m tests.project.check_units

# Write requirements.lock anew, with the newest versions that pyproject.toml allows
lock:
    {{ lock }} --upgrade --output-file requirements.lock

# Format everything
fmt:
    ruff check --fix
    ruff format
    {{ go_tool }} golangci-lint fmt
    {{ caddy }} fmt --overwrite Caddyfile
