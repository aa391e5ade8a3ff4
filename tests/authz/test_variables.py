"""The one table of variables says what the programs, the Caddyfile and compose.yaml really read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest
from attrs import fields

from authz import forms
from authz.__main__ import run
from authz.backends import env_file
from authz.configuration import example
from authz.configuration.variables import CADDY, COMPOSE, VARIABLES, load
from authz.errors import SettingsError
from authz.settings import Settings

ROOT: Final = Path(__file__).parents[2]
BY_NAME: Final = {variable.name: variable for variable in VARIABLES}
PLACE: Final = re.compile(r"\{\$([A-Z0-9_]+)(?::([^}]*))?\}")
LIBRARIES: Final = {"SSL_CERT_FILE", "OTEL_EXPORTER_OTLP_ENDPOINT"}
"""Read by the libraries that Caddy is made of."""
BESIDE_THE_CADDYFILE: Final = {"GATEWAY_BACKENDS": "backends.d"}
"""`import` takes a path relative to the file that it stands in, all else one relative to the folder."""


def test_each_setting_is_in_the_table_once() -> None:
    """No field of Settings is missing, and no name stands there twice."""
    assert {declared.name for declared in fields(Settings)} == {v.field for v in VARIABLES} - {None}
    assert len(VARIABLES) == len(BY_NAME)


def test_the_caddyfile_reads_what_the_table_says() -> None:
    """Each variable of the Caddyfile is in the table as Caddy's, with that very default, and no other is."""
    read = PLACE.findall((ROOT / "caddy" / "Caddyfile").read_text())
    assert read
    named = {v.name for v in VARIABLES if CADDY in v.readers and v.name not in LIBRARIES}
    assert named == {name for name, _ in read}
    for name, default in read:
        expected = BESIDE_THE_CADDYFILE.get(name, BY_NAME[name].default)
        assert default == expected or (not default and BY_NAME[name].field), name


def test_compose_reads_what_the_table_says() -> None:
    """Each variable that a Compose file takes from .env is in the table, and its own with that default."""
    text = "".join(path.read_text() for path in ROOT.glob("compose*.yaml"))
    read = set(re.findall(r"\$\{(?!COMPOSE_)([A-Z0-9_]+)", text))
    assert read
    assert set() == read - BY_NAME.keys()
    for name, default in re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", text):
        assert BY_NAME[name].readers != (COMPOSE,) or default == BY_NAME[name].default


def test_each_variable_says_what_it_is_for() -> None:
    """Each has a help that ends as a sentence, and readers; each default passes its own check."""
    for variable in VARIABLES:
        assert re.fullmatch(r"[A-Z].*\.", variable.help), variable.name
        assert variable.readers
        assert not variable.default or variable.form(variable.default) is None


def test_the_example_is_what_is_generated() -> None:
    """.env.example is made of the table: `neuronetz-gateway settings --example > .env.example`."""
    assert example.text({}) == (ROOT / ".env.example").read_text()


def test_an_example_sets_what_it_is_given() -> None:
    """A given value stands in the place of the default and is read as it was given; nothing else is set."""
    text = example.text({"GATEWAY_DOMAIN": "gw.example.com", "OLLAMA_URL": "http://h:1"})
    found = {name: value for name in BY_NAME if (value := env_file.value_of(text, name))}
    assert {"GATEWAY_DOMAIN": "gw.example.com", "OLLAMA_URL": "http://h:1"} == found
    assert len(text.splitlines()) == len(example.text({}).splitlines())


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (
            forms.database_url,
            [
                "postgresql://u@h/d",
                "postgres://u:1%40@h:5/d?sslmode=require",
                "postgresql:///d?host=/run",
                "postgresql://u:1,2@h/d",
                "postgresql://u@h:1,i:2/d?target_session_attrs=primary",
            ],
            [
                "postgresql://u:1?=x@h/d",
                "postgresql://u:1/x@h/d",
                "postgresql://u:1#x@h/d",
                "mysql://u@h/d",
                "postgresql://u@h:1,i:2/d?sslmode=require",
            ],
        ),
        (forms.time, ["10s", "1h30m", "500ms", "2d", "0", "1.5h"], ["10", "s", "-1s", "ten", "1 s"]),
        (forms.drain, ["5s", "5m", "300s", "4m60s", "0"], ["10", "5m1s", "301s", "1h", "0.1d"]),
        (forms.size, ["32MiB", "64 kb", "1000", "1.5GiB"], ["much", "-1", "MiB", "1 XB"]),
        (forms.port, ["1", "65535"], ["0", "65536", "-1", "http", "²"]),
        (forms.boolean, ["true", "false"], ["on", "True", "1"]),
        (
            forms.acme_directory,
            ["https://ca.example.com/acme/directory", "https://pebble:14000/dir", "https://ca"],
            ["http://ca.example.com/directory", "ca.example.com", "https://", "https://a b"],
        ),
        (forms.switch, ["on", "off"], ["true", "ON", "1"]),
        (forms.networks, ["10.0.0.0/24 192.0.2.7", "fc00::/7,::1"], ["proxy", "10.0.0.0/33", "10.0.0"]),
        (
            forms.domain,
            ["gw.example.com", "a-b.example", "xn--bcher-kva.example"],
            [
                "https://gw.example.com",
                "gw.example.com:443",
                "localhost",
                "gw_.example.com",
                "192.0.2.1",
                "-a.b",
            ],
        ),
        (
            forms.origins,
            ["*", "https://chat.example.com", "http://h:1 app://localhost", "http://[::1]:3000"],
            [
                "",
                "chat.example.com",
                "https://h/p",
                "a b",
                "* https://h",
                "https://H",
                "https://h:443",
                "https://h'",
            ],
        ),
        (forms.any_text, ["x", "ä"], ["a\nb", "\x00"]),
    ],
)
def test_forms(form: forms.Form, good: list[str], bad: list[str]) -> None:
    """A form takes what its reader takes, and says of the rest what to write, without repeating it."""
    assert [None] * len(good) == [form(text) for text in good]
    for text in bad:
        problem = form(text)
        assert problem is not None, text
        assert "write" in problem


@pytest.mark.parametrize(
    "password", ["1?=SECRET", "1/SECRET", "1#SECRET", "[SECRET", "1?a=b&c=SECRET", "SECRET"]
)
def test_no_part_of_a_password_is_shown(password: str) -> None:
    """Where a sign of the password ends it, its rest stands in another part of the URL."""
    assert "SECRET" not in forms.without_password(f"postgresql://user:{password}@host/database")


def test_problems_of_all_readers_come_together(tmp_path: Path) -> None:
    """What Caddy or Compose would refuse later is named beside what authz refuses."""
    wrong = {
        "GATEWAY_DEADLINE_S": "soon",
        "GATEWAY_MAX_BODY": "much",
        "GATEWAY_DOMAIN": "https://gw.example.com",
        "GO_IMAGE": "golang\n",
    }
    with pytest.raises(SettingsError) as refused:
        load(wrong, state=tmp_path, needs_stores=False)
    assert [
        "GATEWAY_DEADLINE_S=soon is no number in its bounds",
        "GATEWAY_DOMAIN='https",
        "GATEWAY_MAX_BODY='much' is no size",
        "GO_IMAGE='golang\\n' holds a control character",
    ] == [text.partition(":")[0] for text in str(refused.value).splitlines()]


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a stack, in an environment that sets nothing."""
    for name in BY_NAME:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_settings_show_where_each_value_comes_from(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each value has its source; what `just` passes on from .env is of .env; secrets are hidden."""
    (alone / ".env").write_text(
        "GATEWAY_POLL_S=7\nGATEWAY_QUEUE_MS=9\nOLLAMA_URL=http://h:1\nREDIS_URL=redis://:SECRET@r:1\n"
    )
    monkeypatch.setenv("GATEWAY_QUEUE_MS", "10")
    monkeypatch.setenv("GATEWAY_POLL_S", "7")
    monkeypatch.setenv("GATEWAY_STATE", "elsewhere")
    monkeypatch.setenv("DATABASE_URL", "postgresql://gateway:SECRET@db/x?sslmode=require")
    monkeypatch.setenv("OLLAMA_BACKENDS", '[{"name":"a","url":"h:1","token":"SECRET"}]')
    assert 0 == run(["settings", "--json"])
    shown = capsys.readouterr()
    assert "SECRET" not in shown.out + shown.err
    rows = {row["setting"]: row for row in json.loads(shown.out)["settings"]}
    assert list(BY_NAME) == list(rows)
    expected = {
        "GATEWAY_POLL_S": ("7", ".env", "s"),
        "GATEWAY_QUEUE_MS": ("10", "environment", "ms"),
        "GATEWAY_DEADLINE_S": ("1800", "default", "s"),
        "GATEWAY_STATE": ("elsewhere", "environment", ""),
        "GATEWAY_TABLES": (str(alone / "elsewhere/tables"), "default", ""),
        "DATABASE_URL": ("postgresql://gateway:***@db/x?sslmode=require", "environment", ""),
        "OLLAMA_BACKENDS": ('[{"name":"a","url":"http://h:1","token":"***"}]', "environment", ""),
        "REDIS_URL": ("redis://:***@r:1", ".env", ""),
        "SSL_CERT_FILE": ("", "default", ""),
    }
    assert expected == {
        name: (rows[name]["value"], rows[name]["source"], rows[name]["unit"]) for name in expected
    }

    assert 0 == run(["settings"])
    table = capsys.readouterr().out
    assert "SECRET" not in table
    assert re.search(r"^GATEWAY_QUEUE_MS +10 +ms +environment *$", table, re.MULTILINE)


def test_settings_name_all_problems(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong in .env, in the environment and with the pepper is named at once, by exit code 1."""
    (alone / ".env").write_text("GATEWAY_POLL_S=0\nGATEWAY_DOMAIN=https://x\n")
    monkeypatch.setenv("GATEWAY_GRACE", "10")
    monkeypatch.setenv("GATEWAY_DEADLIN_S", "60")
    assert 1 == run(["settings", "--check"])
    shown = capsys.readouterr()
    assert ("", 4) == (shown.out, shown.err.count("\n"))
    assert "Note: nothing reads GATEWAY_DEADLIN_S; is GATEWAY_DEADLINE_S meant?\n" in shown.err
    for name in ("GATEWAY_POLL_S=0", "GATEWAY_DOMAIN='https://x'", "GATEWAY_GRACE='10'"):
        assert f"\nerror: {name} is no " in shown.err

    (alone / ".env").write_text("GATEWAY_PEPPER_FILE=nowhere\n")
    monkeypatch.delenv("GATEWAY_GRACE")
    assert 1 == run(["settings", "--check", "--json"])
    assert ["There is no pepper file nowhere"] == [
        text.partition(":")[0] for text in json.loads(capsys.readouterr().out)["problems"]
    ]


def test_wrong_usage_of_settings_exits_2() -> None:
    """An option that does not exist is wrong usage."""
    assert 2 == run(["settings", "--no-such-option"])


def test_the_example_can_be_printed(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An installation without a checkout prints the example, too."""
    assert 0 == run(["settings", "--example"])
    assert example.text({}) == capsys.readouterr().out
