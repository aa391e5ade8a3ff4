"""The grants of every role on every table, exactly: a new table or right must be written down here."""

from __future__ import annotations

from collections import defaultdict

import asyncpg

GRANTS = {
    "gateway_authz": {
        "tenants": "SELECT, UPDATE(published_version)",
        "keys": "SELECT, UPDATE(published_version)",
        "secrets": "SELECT",
        "nodes": "SELECT",
        "budget_windows": "SELECT",
        "open_requests": "SELECT",
        "model_ratios": "SELECT",
        "learned_figures": "SELECT",
        "aliases": "SELECT",
        "alerts": "DELETE, INSERT, SELECT, UPDATE(attempts due_at posted_at recovered_at)",
        "alert_leases": "INSERT, SELECT, UPDATE(holder until)",
        "ledger": "SELECT(request_id tenant_id)",
        "usage_daily": "SELECT",
    },
    "gateway_metering": {
        "tenants": "SELECT, UPDATE(published_version)",
        "keys": "SELECT, UPDATE(published_version)",
        "secrets": "SELECT(key_id lookup)",
        "nodes": "INSERT, SELECT, UPDATE(boot eof_at)",
        "journal_files": "DELETE, INSERT, SELECT, UPDATE",
        "journal_sequences": "INSERT, SELECT, UPDATE",
        "open_requests": "DELETE, INSERT, SELECT, UPDATE(deadline started_at)",
        "ledger": "INSERT, SELECT",
        "unpublished": "DELETE, INSERT, SELECT, UPDATE(key_id)",
        "budget_windows": "INSERT, SELECT, UPDATE(used version)",
        "usage_daily": "INSERT, SELECT, UPDATE(input_tokens output_tokens requests)",
        "refusals_per_minute": "DELETE, INSERT, SELECT, UPDATE",
        "model_ratios": "INSERT, SELECT, UPDATE",
        "boot_progress": "DELETE, INSERT, SELECT, UPDATE",
        "learned_figures": "INSERT, SELECT, UPDATE",
        "dead_letters": "INSERT, SELECT, UPDATE(is_replay_wanted replayed_at)",
        "alerts": "INSERT, SELECT, UPDATE(attempts due_at recovered_at)",
        "alert_leases": "INSERT, SELECT, UPDATE(holder until)",
    },
    "gateway_admin": {
        "tenants": (
            "INSERT, SELECT, UPDATE(concurrency policy published_version requests_per_minute state "
            "timezone tokens_per_day tokens_per_minute tokens_per_month tokens_total version)"
        ),
        "keys": (
            "INSERT, SELECT, UPDATE(cidrs concurrency expires_at log_prompts_s max_output models policy "
            "published_version requests_per_minute state tokens_per_day tokens_per_minute tokens_per_month "
            "tokens_total version)"
        ),
        "secrets": "INSERT, SELECT(created_at expires_at key_id lookup public_key), UPDATE(expires_at)",
        "open_requests": "SELECT(month request_id tenant_id)",
        "nodes": "SELECT, UPDATE(retired_at)",
        "ledger": "SELECT",
        "usage_daily": "SELECT",
        "budget_windows": "SELECT",
        "journal_sequences": "SELECT",
        "refusals_per_minute": "SELECT",
        "dead_letters": "SELECT, UPDATE(is_replay_wanted)",
        "learned_figures": "DELETE, SELECT",
        "admin_audit": "INSERT, SELECT",
        "aliases": "DELETE, INSERT, SELECT, UPDATE(model)",
        "alerts": "SELECT",
        "prompt_pieces": "SELECT",
        "database_identity": "SELECT",
        "chains": "SELECT",
        "chain_batches": "SELECT(chain ids number)",
        "chain_days": "SELECT(chain last)",
        "client_addresses": "SELECT",
        "end_users": "SELECT",
    },
    "gateway_auditor": {
        "client_addresses": "SELECT",
        "end_users": "SELECT",
        "database_identity": "SELECT",
        "chains": "SELECT",
        "chain_batches": "SELECT",
        "chain_days": "SELECT",
        "ledger": "SELECT",
        "ledger_retention": "SELECT",
        "admin_audit": "SELECT",
    },
    # The role of the release before, which the next release takes these rights from.
    "gateway_service": {
        "gateway_service.ledger": "INSERT, SELECT",
        "gateway_service.open_requests": "DELETE, INSERT, SELECT",
        "tenants": "INSERT, SELECT, UPDATE",
        "keys": "INSERT, SELECT, UPDATE",
        "secrets": "INSERT, SELECT, UPDATE",
        "nodes": "INSERT, SELECT, UPDATE",
        "journal_files": "DELETE, INSERT, SELECT, UPDATE",
        "journal_sequences": "DELETE, INSERT, SELECT, UPDATE",
        "open_requests": "DELETE, INSERT, SELECT, UPDATE",
        "ledger": "INSERT, SELECT",
        "unpublished": "DELETE, INSERT, SELECT, UPDATE",
        "budget_windows": "INSERT, SELECT, UPDATE",
        "usage_daily": "INSERT, SELECT, UPDATE",
        "refusals_per_minute": "DELETE, INSERT, SELECT, UPDATE",
        "model_ratios": "INSERT, SELECT, UPDATE",
        "dead_letters": "INSERT, SELECT, UPDATE",
        "admin_audit": "INSERT, SELECT",
    },
    "gateway_reader": {
        "v_requests": "SELECT",
        "v_usage_daily_local": "SELECT",
        "v_budgets": "SELECT",
    },
}

FUNCTIONS = {
    "gateway_authz": {"disable_key", "outbid_versions"},
    "gateway_metering": {
        "address_ids",
        "close_chain_days",
        "end_user_ids",
        "ensure_ledger_partition",
        "expire_prompts",
        "forget_people",
        "oldest_ledger_day",
        "store_prompts",
    },
    "gateway_admin": {"credit_request", "credit_tenant", "erase_prompts", "erase_tenant"},
    "gateway_service": {"drop_ledger_partition", "ensure_ledger_partition"},
}

_TABLE_GRANTS = """
    SELECT a.grantee, c.oid::regclass::text, a.privilege_type, NULL AS attname
    FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS a
    WHERE c.relnamespace IN ('public'::regnamespace, 'gateway_service'::regnamespace) AND c.relkind <> 'S'
        AND a.grantee <> c.relowner
    UNION ALL
    SELECT a.grantee, c.relname, a.privilege_type, t.attname
    FROM pg_class AS c
    JOIN pg_attribute AS t ON t.attrelid = c.oid
    CROSS JOIN aclexplode(t.attacl) AS a
    WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner
"""

_FUNCTION_GRANTS = """
    SELECT a.grantee, p.proname
    FROM pg_proc AS p CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
    WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef AND a.grantee <> p.proowner
"""


async def _names(connection: asyncpg.Connection) -> dict[int, str]:
    roles = await connection.fetch("SELECT oid, rolname FROM pg_roles")
    return {row["oid"]: row["rolname"] for row in roles} | {0: "PUBLIC"}


def _described(rights: dict[str, set[str | None]]) -> str:
    return ", ".join(
        right if None in columns else f"{right}({' '.join(sorted(map(str, columns)))})"
        for right, columns in sorted(rights.items())
    )


async def test_each_role_has_these_grants_and_no_others(owner_of_tables: asyncpg.Connection) -> None:
    """No role, nor everybody, has any right beyond the table above; partitions have none at all."""
    await owner_of_tables.execute("SELECT ensure_ledger_partition('2026-11-25')")
    names = await _names(owner_of_tables)
    found: defaultdict[str, defaultdict[str, defaultdict[str, set[str | None]]]]
    found = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for grantee, table, right, column in await owner_of_tables.fetch(_TABLE_GRANTS):
        found[names[grantee]][table][right].add(column)
    described = {
        role: {table: _described(rights) for table, rights in tables.items()}
        for role, tables in found.items()
    }
    assert described == GRANTS


async def test_each_role_may_call_these_functions(owner_of_tables: asyncpg.Connection) -> None:
    """What runs with the owner's rights is called by one program alone, under a fixed search path."""
    names = await _names(owner_of_tables)
    found: defaultdict[str, set[str]] = defaultdict(set, {role: set() for role in FUNCTIONS})
    for grantee, function in await owner_of_tables.fetch(_FUNCTION_GRANTS):
        found[names[grantee]].add(function)
    assert dict(found) == FUNCTIONS
    paths = await owner_of_tables.fetch(
        "SELECT proname, proconfig FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
    )
    for function, config in paths:
        assert "search_path=public, pg_temp" in (config or ()), function


async def test_no_role_can_make_another(owner_of_tables: asyncpg.Connection) -> None:
    """A role is not allowed to log in, to make roles, to pass row security or to take another role."""
    roles = await owner_of_tables.fetch(
        "SELECT rolname FROM pg_roles AS r WHERE rolname = ANY($1) AND (rolcanlogin OR rolcreaterole "
        "OR rolsuper OR rolbypassrls OR rolcreatedb OR EXISTS "
        "(SELECT FROM pg_auth_members AS m WHERE m.member = r.oid))",
        list(GRANTS),
    )
    assert [] == roles


async def test_no_role_can_make_anything(owner_of_tables: asyncpg.Connection) -> None:
    """What runs with the owner's rights finds by its search path nothing that a role has put there."""
    able = await owner_of_tables.fetch(
        "SELECT r FROM unnest($1::text[]) AS r WHERE has_schema_privilege(r, 'public', 'CREATE')",
        list(GRANTS),
    )
    assert [] == able
