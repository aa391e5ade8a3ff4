"""The file of `apply` is read whole or refused, in one sentence for each thing that is wrong with it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import fields

from authz.__main__ import run
from authz.accounts.scope import Scope
from authz.admin import tenants_file
from authz.admin.limit_options import LimitOptions, ScopeOptions
from authz.admin.policy_options import PolicyOptions
from authz.admin.tenants_file import MOST_BYTES, KeyEntry, TenantEntry
from authz.errors import UsageError

NOW = datetime(2026, 11, 1, tzinfo=UTC)

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} {{<<: [*{before},*{before},*{before},*{before},*{before}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of a command line on stores that do not run."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("GATEWAY_STATE", str(tmp_path))


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "is empty"),
        (b"# nothing yet", "is empty"),
        (b"\xff\xfe\x00", "can't be read as YAML"),
        (b"\x00", "can't be read as YAML"),
        (b"tenants: [", "can't be read as YAML: "),
        (b"tenants: {acme: {rpm: 5}}\n---\ntenants: {}", "can't be read as YAML: "),
        (b"a\n b: c: d", "can't be read as YAML: mapping values are not allowed here, line 2"),
        (b"just a text", "must have names with values below them"),
        (b"[tenants]", "must have names with values below them"),
        (b"tenants: [acme]", "tenants: must have names with values below them"),
        (b"tenant: {acme: }", "unknown tenant; it can have aliases, tenants"),
        (b"tenants: {acme: {rpms: 5}}", "tenants.acme: unknown rpms; it can have aliases, allow,"),
        (b"tenants: {acme: {secret: x}}", "tenants.acme: unknown secret"),
        (b"tenants: {acme: {keys: {a: {timezone: UTC}}}}", "tenants.acme.keys.a: unknown timezone"),
        (b"tenants: {acme: {rpm: 5, rpm: 6}}", "rpm stands twice, line 1"),
        (b"tenants: {acme: }\ntenants: {zeta: }", "tenants stands twice, line 2"),
        (b"tenants: {[a, b]: {rpm: 5}}", "a name must be a text"),
        (b"tenants: {acme: {rpm: [5]}}", "tenants.acme.rpm: must be one value"),
        (b"tenants: {acme: {rpm: {a: 5}}}", "tenants.acme.rpm: must be one value"),
        (b"tenants: {acme: {rpm: }}", "tenants.acme: rpm  is no limit"),
        (b"tenants: {acme: {rpm: 0}}", "tenants.acme: rpm 0 is no limit"),
        (b"tenants: {acme: {rpm: 010x}}", "tenants.acme: rpm 010x is no limit"),
        (b"tenants: {acme: {rpm: 9999999999999}}", "rpm 9999999999999 is no limit"),
        (b"tenants: {acme: {rpm: null}}", "tenants.acme: rpm null is no limit: give a whole number"),
        (
            b"tenants: {acme: {tokens-per-day: 9, tokens-total: 8}}",
            "tokens-per-day 9 lies above tokens-total 8",
        ),
        (b"tenants: {acme: {timezone: Mars/Olympus}}", "'Mars/Olympus' is no IANA time zone"),
        (b"tenants: {acme: {state: revoked}}", "tenants.acme.state: must be one of active, disabled"),
        (b"tenants: {acme: {priority: high}}", "must be one of interactive, batch, none"),
        (b"tenants: {acme: {weight: heavy}}", "weight heavy is no number"),
        (b"tenants: {acme: {weight: 101}}", "weight 101 is out of range"),
        (b"tenants: {acme: {allow: [color<=3]}}", "allow color<=3 is no allowance"),
        (b"tenants: {acme: {allow: {num_ctx: 5}}}", "tenants.acme.allow: must be a value, or a list"),
        (b"tenants: {acme: {in-path: allowed}}", "tenants.acme: in-path belongs to a key"),
        (b"tenants: {acme: {keys: {a: {in-path: yes}}}}", "must be one of allowed, refused"),
        (b"tenants: {acme: {deadline: 2d}}", "deadline 2d is out of range"),
        (b"tenants: {acme: {keys: [a]}}", "tenants.acme.keys: must have names"),
        (b"tenants: {acme: {keys: {a: {models: ['llama 3']}}}}", "'llama 3' is no model name"),
        (b"tenants: {acme: {keys: {a: {models: [[a]]}}}}", "tenants.acme.keys.a.models: must be a value, or"),
        (b"tenants: {acme: {keys: {a: {cidr: 10.0.0.0/99}}}}", "'10.0.0.0/99' is no network"),
        (b"tenants: {acme: {keys: {a: {expires: 30d}}}}", "expires 30d would be another moment at each run"),
        (b"tenants: {acme: {keys: {a: {expires: soon}}}}", "'soon' is no time"),
        (b"tenants: {acme: {keys: {a: {log-prompts: 5m}}}}", "log-prompts 5m is out of range"),
        (b"aliases: {a: [b]}", "aliases.a: must be one value"),
        (BOMB.encode(), "references (*name) are not read, line 2"),
        (b"tenants: &a {acme: *a}", "references (*name) are not read, line 1"),
        (b"[" * 100_000, "it is nested too deeply, line 1"),
        (b"a: " + b"{a: " * 100_000, "it is nested too deeply, line 1"),
        (b"#" * (MOST_BYTES + 1), "is larger than 1,048,576 bytes"),
        (b"tenants: {" + b"x" * 10_000_000, "is larger than 1,048,576 bytes"),
    ],
    ids=range(49),
)
def test_a_wrong_file_is_one_sentence(
    text: bytes, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the file, the place and what belongs there, before the stores are asked; exit 2."""
    path = tmp_path / "tenants.yaml"
    path.write_bytes(text)
    assert 2 == run(["apply", "-f", str(path)])
    complained = capsys.readouterr().err
    assert complained.startswith(f"error: {path}")
    assert sentence in complained
    assert 1 == complained.count("\n")


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize("name", ["missing", "."])
def test_no_file_is_one_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no file says so."""
    assert 2 == run(["apply", "-f", str(tmp_path / name)])
    assert "can't be read (" in capsys.readouterr().err


@pytest.mark.usefixtures("unreachable")
def test_each_problem_has_its_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that is wrong with a file is said at once, each with its place."""
    path = tmp_path / "tenants.yaml"
    path.write_text("tenants: {acme: {rpm: 0, keys: {a: {tpm: 0}, b: }}, zeta: {timezone: Mars}}")
    assert 2 == run(["apply", "-f", str(path)])
    places = [line.split(", ")[1].split(": ")[0] for line in capsys.readouterr().err.splitlines()]
    assert ["tenants.acme", "tenants.acme.keys.a", "tenants.zeta"] == places


def test_every_option_of_the_commands_is_a_field() -> None:
    """What create-tenant, create-key and set-limits can set, the file can."""
    of_tenant, of_key = ({each.name for each in fields(entry)} for entry in (TenantEntry, KeyEntry))
    of_all = {each.name for options in (LimitOptions, PolicyOptions) for each in fields(options)}
    assert of_all | {"state", "timezone", "keys", "aliases"} == of_tenant
    assert of_all | {"state"} | {each.name for each in fields(ScopeOptions)} == of_key


def test_the_reference_shows_a_file_that_is_read() -> None:
    """The example of the operator's reference is a file as it stands."""
    reference = (Path(tenants_file.__file__).parent / "README.md").read_text()
    _, _, rest = reference.partition("```yaml\n")
    found = tenants_file.parse(rest.partition("```")[0].encode(), "README.md")
    assert "60" == found.tenants["acme"].keys["prod-1"].rpm
    assert {"gpt-4o": "llama3.3:70b"} == found.aliases


def test_a_value_means_what_it_means_to_an_option() -> None:
    """What YAML would take for a truth, a date, an octal or a base-60 number is the text that it is."""
    text = b"tenants: {no: {rpm: 010, keys: {1.0: {expires: 2199-01-01, cidr: '::1'}, 2026-01-01: }}}"
    found = tenants_file.parse(text, "f.yaml").tenants["no"]
    assert "010" == found.rpm
    assert ["1.0", "2026-01-01"] == list(found.keys)
    assert "2199-01-01" == found.keys["1.0"].expires


def test_an_end_that_is_over_is_no_error_where_it_is_the_keys() -> None:
    """A file can still be applied when a key of it has expired; another end in the past is refused."""
    scope = Scope(expires_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert scope == KeyEntry(expires="2026-01-01").scoped(scope, NOW)
    with pytest.raises(UsageError, match="in the past"):
        KeyEntry(expires="2026-01-02").scoped(scope, NOW)


def test_a_large_file_is_read_in_a_moment() -> None:
    """Thousands of keys fit into a file."""
    keys = "".join(f"      key-{number}: {{rpm: 60, models: [llama3.2]}}\n" for number in range(2000))
    text = f"tenants:\n  acme:\n    keys:\n{keys}".encode()
    assert len(text) < MOST_BYTES
    assert 2000 == len(tenants_file.parse(text, "f.yaml").tenants["acme"].keys)
