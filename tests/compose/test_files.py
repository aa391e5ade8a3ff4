"""What compose.yaml and compose.dev.yaml promise, read from the files; `just compose-test` runs them."""

from __future__ import annotations

import re
from typing import Final

import pytest
import yaml

from authz.configuration.variables import AUTHZ, CADDY, COMMANDS, COMPOSE, METERING, VARIABLES
from authz.forms import LONGEST_DRAIN_S
from authz.stack import plan, wiring
from tests.compose.project import BOTH, DEVELOPMENT, PRODUCTION, ROOT, Project, load, variables

PYTHON: Final = "neuronetz-gateway-python:"
SERVICES_USER: Final = "65532:65532"
ONE_SHOTS: Final = {"volumes", "prepare", "pull", "cli"}


def python_services(project: Project) -> dict[str, dict[str, str | None]]:
    """Return the environments of all services that run our Python, by their names."""
    return {
        name: service.environment
        for name, service in project.services.items()
        if service.image.startswith(PYTHON) and service.environment
    }


def test_only_caddy_can_be_reached() -> None:
    """Caddy alone publishes ports: for TLS in production, on this machine alone in development."""
    assert {"caddy": ["80:80", "443:443"]} == {
        name: service.ports for name, service in PRODUCTION.services.items() if service.ports
    }
    assert {"caddy": ["127.0.0.1:8080:8080"]} == {
        name: service.ports for name, service in DEVELOPMENT.services.items() if service.ports
    }


def test_what_holds_data_reaches_nothing() -> None:
    """Ollama and the stores are on internal networks alone; models come in by another service."""
    internal = {name for name, network in PRODUCTION.networks.items() if network.get("internal")}
    assert {"data", "llm_internal", "metrics"} == internal
    for name, network in {"ollama": "llm_internal", "postgres": "data", "redis": "data"}.items():
        assert [network] == PRODUCTION.services[name].networks
    assert {"pull"} == PRODUCTION.users_of("models")
    assert ["models:/models"] == PRODUCTION.services["ollama"].volumes == PRODUCTION.services["pull"].volumes
    assert "ollama" not in DEVELOPMENT.services


def test_each_reaches_what_it_needs() -> None:
    """authz and Caddy share each network of backends; none of our Python can be reached on the way out."""
    services = PRODUCTION.services
    for decider in ("authz-0", "authz-1"):
        assert {"llm_internal", "proxy"} == set(services[decider].networks) & set(services["caddy"].networks)
    assert {"authz-0", "authz-1", "metering", "cli"} == PRODUCTION.users_of("outbound")
    assert {"com.docker.network.bridge.enable_icc": "false"} == PRODUCTION.networks["outbound"]["driver_opts"]
    assert {"caddy"} == PRODUCTION.users_of("edge") == PRODUCTION.users_of("metrics")
    assert not PRODUCTION.users_of("data") & {"caddy", "ollama", "pull"}


def test_addresses_of_ipv6_arrive() -> None:
    """Clients come in by a network with IPv6 that is the way back too, and metrics on one of their own."""
    assert "true" == str(PRODUCTION.networks["edge"]["enable_ipv6"])
    caddy = PRODUCTION.services["caddy"]
    assert isinstance(caddy.networks, dict)
    assert {"gw_priority": 1} == caddy.networks["edge"]
    assert "[::]" == caddy.environment["GATEWAY_BIND"]
    assert [caddy.environment["GATEWAY_METRICS_BIND"]] == caddy.networks["metrics"]["aliases"]


@pytest.mark.parametrize("name", PRODUCTION.services)
def test_each_service_is_confined(name: str) -> None:
    """None is root but what must write for others; each has no capability by default and a fixed disk."""
    service = PRODUCTION.services[name]
    root = {"volumes": {"CHOWN", "FOWNER"}, "cli": {"CHOWN", "DAC_OVERRIDE", "FOWNER"}}
    assert (service.user.partition(":")[0] in {"0", "root"}) == (name in root)
    assert root.get(name, set()) == set(service.cap_add)
    assert ["ALL"] == service.cap_drop
    assert ["no-new-privileges:true"] == service.security_opt
    assert service.read_only
    assert (service.restart == "unless-stopped") == (name not in ONE_SHOTS)


@BOTH
def test_each_service_says_whether_it_works(project: Project) -> None:
    """What runs on has a health check; what waits for another waits for that, or for the other's end."""
    services = project.services
    for name, service in services.items():
        is_one_shot = name in ONE_SHOTS | {"init"}
        assert is_one_shot != service.is_lasting, name
        for needed, how in service.depends_on.items():
            lasts = services[needed].is_lasting
            expected = "service_healthy" if lasts else "service_completed_successfully"
            assert {"condition": expected} == how, (name, needed)
    assert {"authz-0", "metering"} <= services["caddy"].depends_on.keys()
    assert {"prepare", "redis"} == services["authz-0"].depends_on.keys()


def test_each_shared_folder_has_an_owner() -> None:
    """Every volume of a service of ours is given to its user before that starts, as are the snippets."""
    owner = PRODUCTION.services["volumes"]
    given = {mount.source: mount.target for mount in owner.mounts}
    assert set(owner.command) == set(given.values())
    for name, service in PRODUCTION.services.items():
        if service.user == SERVICES_USER:
            used = {mount.source for mount in service.mounts} - {"./caddy"}
            assert used <= given.keys(), name
            assert name == "volumes" or not used or _waits_for_owner(PRODUCTION, name), name


def _waits_for_owner(project: Project, name: str) -> bool:
    service = project.services[name]
    return name in {"volumes", "pull"} or any(
        _waits_for_owner(project, needed) for needed in service.depends_on
    )


@BOTH
def test_paths_are_equal_on_both_sides(project: Project) -> None:
    """A volume is at one path everywhere; each path of a setting is in one; Caddy has the same."""
    places: dict[str, set[str]] = {}
    for service in project.services.values():
        for mount in service.mounts:
            places.setdefault(mount.source, set()).add(mount.target)
    assert dict.fromkeys(places, 1) == {source: len(targets) for source, targets in places.items()}

    caddy = project.services["caddy"].environment
    for name, environment in python_services(project).items():
        assert {} == {
            key: value for key, value in environment.items() if key in caddy and caddy[key] != value
        }, name
    sockets = [
        service.command[1] for name, service in sorted(project.services.items()) if name.startswith("authz-")
    ]
    assert sockets
    assert " ".join(f"unix/{socket}" for socket in sockets) == caddy["GATEWAY_AUTHZ"]
    assert {caddy["GATEWAY_RUN"]} == {socket.rpartition("/")[0] for socket in sockets}


@pytest.mark.parametrize("name", ["authz-0", "authz-1", "metering", "caddy", "cli"])
def test_what_a_program_opens_is_mounted(name: str) -> None:
    """Each path that a service's settings name and that it needs lies in something mounted there."""
    service = load("compose.yaml", GATEWAY_ALERT_TOKEN_FILE="token").services[name]
    needed = {
        "caddy": {"GATEWAY_CONTROL", "GATEWAY_JOURNAL", "GATEWAY_TABLES", "GATEWAY_BACKENDS", "GATEWAY_RUN"},
        "metering": {"GATEWAY_METRICS_SOCKET", "GATEWAY_JOURNAL"},
        "cli": {"GATEWAY_CONTROL", "GATEWAY_METRICS_SOCKET", "GATEWAY_JOURNAL", "GATEWAY_TABLES"},
    }.get(name, {"GATEWAY_TABLES", "GATEWAY_BACKENDS"})
    targets = [mount.target for mount in service.mounts]
    for variable in needed:
        value = service.environment[variable]
        assert value is not None
        assert any(value == target or value.startswith(f"{target}/") for target in targets), variable
    files = {f"/run/secrets/{secret}" for secret in service.secrets}
    asked = {
        "caddy": set[str](),
        "metering": {"DATABASE_PASSWORD_FILE"},
    }.get(name, {"DATABASE_PASSWORD_FILE", "GATEWAY_PEPPER_FILE", "GATEWAY_ALERT_TOKEN_FILE"})
    assert files == {service.environment[variable] for variable in asked}


@BOTH
def test_what_a_program_writes_is_writable(project: Project) -> None:
    """Sockets, the journal and the folder of the vocabularies, in which authz and Caddy both write."""
    written = {
        "authz-0": {"run", "tables"},
        "metering": {"run", "journal"},
        "caddy": {"run", "journal", "tables"},
    }
    for name, sources in written.items():
        assert sources <= {mount.source for mount in project.services[name].mounts if mount.is_writable}, name


def test_only_commands_write_into_the_project() -> None:
    """No service that runs on can write .env or a snippet: `cli` can, and both what prepares the snippets."""
    writers = {
        name: {mount.source for mount in service.mounts if mount.is_writable and mount.source[0] == "."}
        for name, service in PRODUCTION.services.items()
    }
    assert {
        "cli": {".", "./caddy/backends.d"},
        "prepare": {"./caddy/backends.d"},
        "volumes": {"./caddy/backends.d"},
    } == {name: sources for name, sources in writers.items() if sources}


@BOTH
def test_every_setting_is_passed(project: Project) -> None:
    """Each variable of the table reaches each program that reads it."""
    caddy = project.services["caddy"].environment
    ours = {variable.name for variable in VARIABLES if CADDY in variable.readers}
    missing = ours - caddy.keys()
    dev = {
        "GATEWAY_ACME_DIRECTORY",
        "GATEWAY_METRICS",
        "GATEWAY_METRICS_BIND",
        "GATEWAY_METRICS_PORT",
        "GATEWAY_PROXY_PROTOCOL",
        "GATEWAY_TRUSTED_PROXIES",
    }
    assert (set() if project is PRODUCTION else dev) == missing
    for name, environment in python_services(project).items():
        assert ".env" == project.services[name].env_file, name
        fixed = {key for key, value in environment.items() if value is not None}
        assert fixed <= {v.name for v in VARIABLES if {AUTHZ, METERING, COMMANDS} & set(v.readers)}
    assert {v.name for v in VARIABLES if v.readers == (COMPOSE,)} <= variables("compose.yaml").keys() | {
        "GATEWAY_DOMAIN"
    }


@BOTH
def test_a_changed_list_restarts_nothing(project: Project) -> None:
    """authz follows the list that is rendered; its own environment, which would restart it, holds none."""
    for name, environment in python_services(project).items():
        has_none = {environment.get(variable) for variable in ("OLLAMA_BACKENDS", "OLLAMA_URL")} == {""}
        assert has_none == name.startswith("authz-"), name


def test_a_domain_is_required() -> None:
    """Production demands a domain before anything starts; development takes the example as it is."""
    demanded = {name for name, default in variables("compose.yaml").items() if default is None}
    assert {"GATEWAY_DOMAIN"} == demanded
    assert None not in variables("compose.dev.yaml").values()
    site = load("compose.yaml", GATEWAY_DOMAIN="gw.example.com").services["caddy"].environment["GATEWAY_SITE"]
    assert "gw.example.com, https://" == site


@BOTH
def test_caddy_is_given_no_secret(project: Project) -> None:
    """C3: Caddy gets no env file, no secret, and only variables that it reads, none a secret."""
    caddy = project.services["caddy"]
    assert (caddy.env_file, caddy.secrets) == ([], [])
    secret = {variable.name for variable in VARIABLES if variable.is_secret}
    assert not secret & caddy.environment.keys()
    read = {variable.name for variable in VARIABLES if CADDY in variable.readers}
    assert caddy.environment.keys() - read <= {"XDG_DATA_HOME", "XDG_CONFIG_HOME"}
    assert not [each for each in caddy.mounts if "secret" in each.source]


def test_secrets_are_files() -> None:
    """C3: no password stands in an environment or a URL, and each service has only what it reads."""
    for name, service in PRODUCTION.services.items():
        for variable, value in service.environment.items():
            assert "PASSWORD" not in variable or str(value).startswith("/run/secrets/"), name
            assert not re.search(r"//[^/]*:[^/]*@", str(value)), name
    assert {
        "authz-0": ["pepper", "postgres_password", "alert_token"],
        "authz-1": ["pepper", "postgres_password", "alert_token"],
        "cli": ["pepper", "postgres_password", "alert_token"],
        "metering": ["postgres_password"],
        "postgres": ["postgres_password"],
        "prepare": ["pepper", "postgres_password", "alert_token"],
    } == {name: service.secrets for name, service in PRODUCTION.services.items() if service.secrets}


@pytest.mark.parametrize("path", ["", "./secrets/token"])
def test_alerts_may_have_a_token(path: str) -> None:
    """The file of .env is where it is asked for; without one it is an empty file that no setting names."""
    project = load("compose.yaml", GATEWAY_ALERT_TOKEN_FILE=path)
    assert (path or "/dev/null") == project.secrets["alert_token"]["file"]
    named = project.services["authz-0"].environment["GATEWAY_ALERT_TOKEN_FILE"]
    assert named == ("/run/secrets/alert_token" if path else "")


def test_caddy_is_given_time_to_end() -> None:
    """Streams that may go on for the grace after the longest drain are not killed before it is over."""
    caddy = PRODUCTION.services["caddy"]
    grace = caddy.environment["GATEWAY_GRACE"]
    assert grace is not None
    minutes = [int(text.removesuffix("m")) for text in (grace, caddy.stop_grace_period)]
    assert LONGEST_DRAIN_S / 60 + minutes[0] < minutes[1]


@BOTH
def test_deciders_are_started_as_everywhere(project: Project) -> None:
    """The options of uvicorn are those of `up` and systemd; the services have the names that commands use."""
    flags = " ".join(plan.UVICORN[2:]).replace(" --", "\n--").splitlines()
    expected = {flag.replace(" ", "=", 1) for flag in flags}
    entrypoint = project.services[wiring.DECIDER].entrypoint
    started = {flag for flag in entrypoint[1:] if flag.startswith("--") and flag != "--factory"}
    assert {"--factory=authz.app:create"} == expected - started
    assert ["uvicorn", "--factory", "authz.app:create"] == entrypoint[:3]
    assert wiring.EDGE in project.services


def test_a_gpu_is_one_more_file() -> None:
    """compose.gpu.yaml changes nothing but the devices of Ollama."""
    override = yaml.safe_load((ROOT / "compose.gpu.yaml").read_text())
    assert ["services"] == list(override)
    assert {"ollama"} == override["services"].keys()
    assert ["deploy"] == list(override["services"]["ollama"])
