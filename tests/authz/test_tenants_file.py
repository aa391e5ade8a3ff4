"""The file of `apply` is read whole or refused, in one sentence for each thing that is wrong with it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import fields

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
