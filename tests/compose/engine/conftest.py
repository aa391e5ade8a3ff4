"""One deployment of compose.yaml with Pebble as its authority and a scripted Ollama, for all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
import yaml

from authz.stack.build import go_environ
from authz.stack.embedded import wheel_folder
from tests.compose.engine.deployment import AS_ROOT, DOMAIN, Client, Deployment
from tests.ollama.build import ollama_folder
from tests.ollama.models import write_models

HERE: Final = Path(__file__).parent
PASSWORD: Final = "p@ss/w:rd#1?&%'\"$x\\ ä"
"""Of the database: signs that mean something in a URL, a shell, YAML or an env file."""
OLLAMA_IMAGE: Final = "ollama/ollama:scripted"
PEBBLE_IMAGE: Final = "neuronetz-gateway-test-pebble"
_BASE: Final = "python:3.14.8-slim"
_DIRECTORY: Final = "https://pebble:14000/dir"
_OVERRIDE: Final = {
    "services": {
        "caddy": {
            "networks": {"edge": {"aliases": [DOMAIN]}},
            "depends_on": {"pebble": {"condition": "service_started"}},
        },
        "pebble": {
            "image": PEBBLE_IMAGE,
            "environment": {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
            "networks": ["edge"],
        },
        "registry": {
            "image": "neuronetz-gateway-python:0.1.0",
            "pull_policy": "never",
            "command": ["python", "/registry.py", "/models"],
            "volumes": ["./registry.py:/registry.py:ro", "./toys:/models:ro"],
            "networks": {"models": {"aliases": ["blobs"]}},
        },
    }
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test time for a start; they build on each other, in the order in which they stand."""
    for item in items:
        item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make images of the real Ollama with its scripted runner and of Pebble; return what trusts Pebble."""
    ollama = tmp_path_factory.mktemp("ollama")
    shutil.copytree(ollama_folder(os.environ), ollama / "ollama")
    (ollama / "Dockerfile").write_text(
        f"FROM {_BASE}\nCOPY ollama/bin /usr/bin\nCOPY ollama/lib /usr/lib\nENV OLLAMA_HOST=0.0.0.0:11434\n"
        'ENTRYPOINT ["/usr/bin/ollama"]\nCMD ["serve"]\n'
    )
    _build(OLLAMA_IMAGE, ollama)
    pebble = tmp_path_factory.mktemp("pebble")
    program = [
        "build",
        "-trimpath",
        "-o",
        str(pebble / "pebble"),
        "github.com/letsencrypt/pebble/v2/cmd/pebble",
    ]
    subprocess.run(
        [str(wheel_folder("go") / "bin" / "go"), *program],
        cwd=HERE.parent / "pebble",
        env={**go_environ(os.environ), "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -modcacherw"},
        check=True,
    )
    shutil.copy(HERE.parent / "pebble" / "pebble.json", pebble)
    certificate(pebble)
    (pebble / "Dockerfile").write_text(
        'FROM scratch\nCOPY . /\nENTRYPOINT ["/pebble", "-config", "/pebble.json"]\n'
    )
    _build(PEBBLE_IMAGE, pebble)
    return pebble / "acme.pem"


def certificate(folder: Path) -> None:
    """Make the certificate of Pebble's own server, which is trusted as it is."""
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    names = ["-subj", "/CN=pebble", "-addext", "subjectAltName=DNS:pebble", "-days", "30"]
    files = ["-keyout", str(folder / "acme.key"), "-out", str(folder / "acme.pem")]
    subprocess.run([*request, *names, *files], check=True, capture_output=True)


@pytest.fixture(scope="session")
def deployment(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A folder as `init` leaves it, with nothing running; brought down whatever became of it."""
    made = Deployment.copied(tmp_path_factory.mktemp("gateway"))
    made.ours("init", "--domain", DOMAIN)
    pepper, password = (made.folder / "secrets" / name for name in ("pepper", "postgres_password"))
    made.secrets += [PASSWORD, pepper.read_text().strip()]
    password.chmod(0o600)
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o440)
    made.run(*AS_ROOT, "chown", "65532:65532", str(pepper), str(password))
    shutil.copy(authority, made.folder / "caddy" / "backends.d" / "acme.pem")
    shutil.copy(HERE / "registry.py", made.folder)
    write_models(made.folder / "toys")
    (made.folder / "compose.test.yaml").write_text(yaml.safe_dump(_OVERRIDE))
    made.set(
        COMPOSE_FILE="compose.yaml:compose.test.yaml",
        COMPOSE_PROJECT_NAME="gwtest",
        GATEWAY_ACME_DIRECTORY=_DIRECTORY,
        SSL_CERT_FILE="/etc/caddy/backends.d/acme.pem",
        OLLAMA_IMAGE=OLLAMA_IMAGE,
    )
    yield made
    made.compose("--profile", "cli", "down", "--volumes", "--remove-orphans", "--timeout", "5")


@pytest.fixture(scope="session")
def root(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root by which Pebble's certificates are trusted, once it runs."""
    path = tmp_path_factory.mktemp("root") / "root.pem"
    url = f"https://{deployment.address('pebble', 'edge')}:15000/roots/0"
    path.write_text(httpx.get(url, verify=False).text)  # noqa: S501 (the key is the test's own)
    return path


@pytest.fixture(scope="session")
def client(deployment: Deployment, root: Path) -> Client:
    """A client with a key of its own, whose every answer is whole."""
    deployment.cli("create-tenant", "--name", "acme")
    return Client(root, new_key(deployment, "exact"))


def new_key(deployment: Deployment, name: str, *options: str) -> str:
    """Create a key and return it."""
    printed = deployment.cli("create-key", "--tenant", "acme", "--name", name, *options)
    return printed.split()[0]


@pytest.fixture
def spent() -> dict[str, int]:
    """What the client was told that its answers cost, in all tests."""
    return _SPENT


_SPENT: Final[dict[str, int]] = {"exact": 0}


def _build(tag: str, folder: Path) -> None:
    subprocess.run(["docker", "build", "--quiet", "--tag", tag, str(folder)], check=True, capture_output=True)
