"""The admin command line: one module per group of commands, loaded when one of them is run."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from cyclopts import App

COMMANDS: Final = {
    "up": "authz.admin.up:up",
    "down": "authz.admin.status:down",
    "status": "authz.admin.status:status",
    "logs": "authz.admin.status:logs",
    "init": "authz.admin.init:init_command",
    "systemd": "authz.admin.systemd:systemd_command",
    "settings": "authz.admin.settings:settings_command",
    "doctor": "authz.admin.doctor:doctor_command",
    "backup": "authz.admin.backup:backup_command",
    "restore": "authz.admin.backup:restore_command",
    "migrate": "authz.admin.migrate:migrate_command",
    "add-backend": "authz.admin.backends:add_backend_command",
    "remove-backend": "authz.admin.backends:remove_backend_command",
    "list-backends": "authz.admin.backends:list_backends_command",
    "probe-ollama": "authz.admin.backends:probe_ollama_command",
    "wire-multi-backend": "authz.admin.wire:wire_multi_backend_command",
    "render": "authz.admin.backends:render_command",
    "create-tenant": "authz.admin.tenants:create_tenant_command",
    "list-tenants": "authz.admin.tenants:list_tenants_command",
    "disable-tenant": "authz.admin.tenants:disable_tenant_command",
    "enable-tenant": "authz.admin.tenants:enable_tenant_command",
    "create-key": "authz.admin.keys:create_key_command",
    "list-keys": "authz.admin.keys:list_keys_command",
    "rotate-key": "authz.admin.keys:rotate_key_command",
    "disable-key": "authz.admin.keys:disable_key_command",
    "enable-key": "authz.admin.keys:enable_key_command",
    "revoke-key": "authz.admin.keys:revoke_key_command",
    "revoke-secret": "authz.admin.keys:revoke_secret_command",
    "apply": "authz.admin.apply:apply_command",
    "set-limits": "authz.admin.limits:set_limits_command",
    "show-limits": "authz.admin.limits:show_limits_command",
    "connect": "authz.admin.connect:connect_command",
    "usage": "authz.admin.usage:app",
    "audit": "authz.admin.audit:app",
}

GROUPS: Final = {
    "alerts": (
        "What needed a person, and whether it was posted.",
        {
            "list": "authz.admin.alerts:alerts_list_command",
            "test": "authz.admin.alerts:alerts_test_command",
        },
    ),
    "alias": (
        "Names by which clients ask for models.",
        {
            "set": "authz.admin.aliases:alias_set_command",
            "remove": "authz.admin.aliases:alias_remove_command",
            "list": "authz.admin.aliases:alias_list_command",
        },
    ),
    "streams": (
        "What runs right now.",
        {
            "list": "authz.admin.streams:streams_list_command",
            "kill": "authz.admin.streams:streams_kill_command",
        },
    ),
    "dead-letters": (
        "Journal lines that metering did not understand.",
        {
            "list": "authz.admin.dead_letters:letters_list_command",
            "replay": "authz.admin.dead_letters:letters_replay_command",
        },
    ),
    "learned": (
        "The figures by which tokens are counted that no backend reported.",
        {
            "list": "authz.admin.learned:learned_list_command",
            "reset": "authz.admin.learned:learned_reset_command",
        },
    ),
    "prompts": (
        "Prompts and answers of keys with --log-prompts.",
        {
            "list": "authz.admin.prompts:prompts_list_command",
            "show": "authz.admin.prompts:prompts_show_command",
            "erase": "authz.admin.prompts:prompts_erase_command",
        },
    ),
    "vault": (
        "The keys that prompts are sealed for.",
        {
            "init": "authz.admin.vault:vault_init_command",
            "rotate": "authz.admin.vault:vault_rotate_command",
        },
    ),
    "tenant": (
        "The data of a tenant.",
        {"erase": "authz.admin.tenants:tenant_erase_command"},
    ),
    "node": (
        "The nodes and their journals.",
        {"list": "authz.admin.nodes:node_list_command", "retire": "authz.admin.nodes:node_retire_command"},
    ),
}

app = App(
    name="neuronetz-gateway",
    help="Keys, limits and an exact bill in front of Ollama.",
    version=version("neuronetz-gateway"),
    help_epilogue="Every command finds the stores of the stack in --state (default .gateway).",
)
app.register_install_completion_command(help="Complete commands and options in this shell from now on.")
for _name, _where in COMMANDS.items():
    app.command(_where, name=_name)
for _group, (_help, _commands) in GROUPS.items():
    _sub = App(name=_group, help=_help)
    for _name, _where in _commands.items():
        _sub.command(_where, name=_name)
    app.command(_sub)
