"""A first start in an empty folder, and what can be reached from where."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess

import pytest

from tests.compose.engine.conftest import new_key
from tests.compose.engine.deployment import DOMAIN, MODEL, Client, Deployment, Refused, distant_client
from tests.up.stacks import until

ALL = ["authz-0", "authz-1", "caddy", "metering", "ollama", "postgres", "redis"]


def test_nothing_starts_without_a_domain(deployment: Deployment) -> None:
    """Without GATEWAY_DOMAIN one sentence says what to write where, and no container is made."""
    deployment.set(GATEWAY_DOMAIN="")
    done = deployment.compose("up", "--detach", is_checked=False)
    assert 0 != done.returncode
    assert 1 == len(done.stderr.strip().splitlines())
    assert "GATEWAY_DOMAIN is missing a value: write it into .env" in done.stderr
    deployment.set(GATEWAY_DOMAIN=DOMAIN)
    assert {} == deployment.states()


def test_first_start(deployment: Deployment) -> None:
    """One command builds and starts everything; each part becomes healthy, and none is started twice."""
    deployment.compose("up", "--build", "--detach")
    until(deployment.healthy)
    states = deployment.states()
    assert ALL == sorted(name for name, each in states.items() if "Health" in each["State"])
    assert {0} == {each["RestartCount"] for each in states.values()}
    assert {"exited": 0} == {
        each["State"]["Status"]: each["State"]["ExitCode"]
        for name, each in states.items()
        if name in {"volumes", "prepare"}
    }
    assert deployment.healthy()


def test_models_come_by_pull_alone(deployment: Deployment) -> None:
    """`pull` fetches a model that Ollama then has, though Ollama itself reaches no registry."""
    deployment.compose("run", "--rm", "--no-TTY", "pull", "--insecure", MODEL)
    assert MODEL in deployment.compose("exec", "--no-TTY", "ollama", "ollama", "list").stdout
    alone = deployment.compose("exec", "--no-TTY", "ollama", "ollama", "pull", MODEL, is_checked=False)
    assert 0 != alone.returncode


def test_tls_and_a_streamed_answer(client: Client, spent: dict[str, int]) -> None:
    """The certificate is Pebble's for our domain, plain HTTP leads to it, and an answer streams."""
    assert 200 == client.get("/healthz").status_code
    assert 200 == client.get("/readyz").status_code
    context = ssl.create_default_context(cafile=client.root)
    with (
        socket.create_connection(("127.0.0.1", 443)) as plain,
        context.wrap_socket(plain, server_hostname=DOMAIN) as tls,
    ):
        certificate = tls.getpeercert()
    assert certificate
    assert (("DNS", DOMAIN),) == certificate["subjectAltName"]
    with socket.create_connection(("127.0.0.1", 80)) as plain:
        plain.sendall(f"GET / HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n".encode())
        answer = plain.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 308 ")
    assert f"Location: https://{DOMAIN}/" in answer
    spent["exact"] += client.chat(20)


def test_vocabularies_are_kept(deployment: Deployment, client: Client) -> None:
    """Caddy writes the table of the model down beside what authz wrote of it, and `status` names no model."""
    look = ("exec", "--no-TTY", "authz-0", "sh", "-c", "ls /var/lib/gateway/tables/*.table")
    until(lambda: deployment.compose(*look, is_checked=False).returncode == 0)
    assert "count a token a byte" not in deployment.cli("status")
    assert "can't be written" not in deployment.compose("logs", "--no-color", "caddy").stdout


def test_every_command_works_in_cli(deployment: Deployment, client: Client) -> None:
    """What asks the stores, Caddy, metering and the backends is answered there."""
    status = json.loads(deployment.cli("status", "--json"))
    assert status["ready"]
    assert {"caddy": "running", "metering": "running", "authz": ["running", "running"]} == {
        name: status["states"][name] for name in ("caddy", "metering", "authz")
    }
    found = json.loads(deployment.cli("doctor", "--json"))
    wrong = [each for each in found["findings"] if each["level"] != "ok" and each["check"] != "backup"]
    assert [] == wrong
    assert "Nothing runs right now." in deployment.cli("streams", "list")
    for command in ("list-tenants", "list-backends", "probe-ollama", "audit", "settings"):
        deployment.cli(command)
    deployment.cli("backup", "--to", "/app/backups")
    assert list((deployment.folder / "backups").iterdir())
    assert client.key not in deployment.cli("list-keys", "--tenant", "acme")


def test_stores_and_models_reach_nothing(deployment: Deployment) -> None:
    """From Ollama and from the stores there is no way out, and none to each other."""
    look = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"

    def reaches(service: str, host: str, port: int) -> bool:
        argv = ("exec", "--no-TTY", service, "python", "-c", look, host, str(port))
        return deployment.compose(*argv, is_checked=False).returncode == 0

    caddy, registry = deployment.address("caddy", "edge"), deployment.address("registry", "models")
    assert reaches("authz-0", "ollama", 11434)
    assert reaches("authz-0", "postgres", 5432)
    for host, port in (("postgres", 5432), ("redis", 6379), (caddy, 443), (registry, 5000), ("caddy", 9180)):
        assert not reaches("ollama", host, port), host
    for host, port in (("ollama", 11434), ("caddy", 443), (registry, 5000)):
        assert not reaches("registry", host, port) or host == registry
    assert ["ollama"] == [
        name
        for name, each in deployment.states().items()
        if any("llm_internal" in network for network in each["NetworkSettings"]["Networks"])
        and name not in {"caddy", "authz-0", "authz-1"}
    ]


def test_metrics_on_their_own_network(deployment: Deployment) -> None:
    """A Prometheus on the network of the metrics finds every page; by the others none answers."""
    pages = ("caddy", "metering", "authz/0", "authz/1")
    ask = "; ".join(
        ["import urllib.request as u"]
        + [f"print(u.urlopen('http://caddy-metrics:9180/{page}', timeout=5).status)" for page in pages]
    )
    image = deployment.states()["metering"]["Image"]
    done = deployment.run("docker", "run", "--rm", "--network=gwtest_metrics", image, "python", "-c", ask)
    assert ["200"] * 4 == done.stdout.split()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((deployment.address("caddy", "edge"), 9180), timeout=5)


@pytest.mark.parametrize(
    ("number", "network", "host"), [(1, "10.77.1.0/24", "10.77.1.1"), (2, "fd77:2::/64", "[fd77:2::1]")]
)
def test_clients_keep_their_address(
    deployment: Deployment, client: Client, number: int, network: str, host: str
) -> None:
    """A key for one network is served there and refused elsewhere: the address seen is the client's own."""
    key = new_key(deployment, f"cidr-{number}", "--cidr", network)
    with distant_client(number) as prefix:
        request = ["curl", "--silent", "--show-error", "--cacert", str(client.root), "--max-time", "20"]
        headers = ["--header", f"Authorization: Bearer {key}", "--output", "/dev/null", "--write-out"]
        where = ["%{http_code}", "--resolve", f"{DOMAIN}:443:{host}", f"https://{DOMAIN}/api/tags"]
        done = subprocess.run(
            [*prefix, *request, *headers, *where], capture_output=True, text=True, check=False
        )
    assert ("200", "") == (done.stdout, done.stderr)
    with pytest.raises(Refused) as refused:
        Client(client.root, key).chat()
    assert 403 == refused.value.args[0]


def test_no_secret_where_it_must_not_be(deployment: Deployment, client: Client) -> None:
    """C3: Caddy's environment, the images and the logs hold no password, no pepper and no key."""
    secrets = [*deployment.secrets, client.key]
    states = deployment.states()
    shown = json.dumps([each["Config"] for each in states.values()])
    layers = deployment.run("docker", "history", "--no-trunc", states["authz-0"]["Image"]).stdout
    logs = deployment.compose("logs", "--no-color").stdout
    for text in (shown, layers, logs):
        assert [] == [secret[:4] for secret in secrets if secret in text]
    assert not [name for name in states["caddy"]["Config"]["Env"] if name.startswith(("DATABASE", "REDIS"))]


def test_the_password_is_what_it_is(deployment: Deployment) -> None:
    """Postgres takes the password of the file, signs and all, and no other."""
    ask = "import asyncio, asyncpg as a, pathlib; asyncio.run(a.connect(host='postgres', user='gateway', "
    ask += "password="
    right = f"{ask}pathlib.Path('/run/secrets/postgres_password').read_text().strip()))"
    for code, expected in ((right, 0), (f"{ask}'p'))", 1)):
        done = deployment.compose("exec", "--no-TTY", "authz-0", "python", "-c", code, is_checked=False)
        assert expected == done.returncode, done.stderr
