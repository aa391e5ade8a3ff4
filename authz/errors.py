"""Failures are exceptions, decisions are not: nothing here ever says "no" to a client.

GatewayError
├── SettingsError       a setting is missing or wrong; nothing was started
├── CommandError        a command can't do what was asked; nothing was written
│   └── UsageError      the command line itself is wrong
├── StoreUnavailable    Postgres can't be asked right now
└── LimiterUnavailable  Redis can't be asked right now, or must not be trusted
"""


class GatewayError(Exception):
    """Base of all our failures; never raised itself. Its text is one sentence a line, for an operator."""


class SettingsError(GatewayError):
    """Settings are missing or wrong, a sentence for each; raised before anything is opened."""


class CommandError(GatewayError):
    """A command refuses: the text says what to do instead, exit_code what the shell sees."""

    exit_code = 1


class UsageError(CommandError):
    """An option or argument has a value that no state of the stores could make valid."""

    exit_code = 2


class StoreUnavailable(GatewayError):
    """Postgres did not answer, or not in time."""


class LimiterUnavailable(GatewayError):
    """Redis did not answer, or not in time, or is set up so that it may forget."""


def complaint(error: GatewayError) -> str:
    """Return what a program writes on stderr: `error: ` and a sentence on each line."""
    return "".join(f"error: {sentence}\n" for sentence in str(error).splitlines())
