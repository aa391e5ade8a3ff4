"""The forms of values: a form returns what is wrong with a text and what to write instead, else None.

None of them repeats the text, which may hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Final, TypeAlias
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

Form: TypeAlias = Callable[[str], str | None]

LONGEST_DRAIN_S: Final = 300
"""The same as in caddy/app.go: what stops Caddy waits for longer than this and its grace."""

HIDDEN: Final = "***"
_LOGIN: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*"
_HOST: Final = r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._%-]*)(?::[0-9]{0,5})?"
_AUTHORITY: Final = re.compile(rf"(?:{_LOGIN}@)?{_HOST}(?:,{_HOST})*", re.ASCII)
_TIME: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h|d))+", re.ASCII)
_PART: Final = re.compile(r"([0-9.]+)([a-zµ]+)", re.ASCII)
_SECONDS: Final = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86_400
}  # fmt: skip
_SIZE: Final = re.compile(r"[0-9]+(?:\.[0-9]+)? ?(?:[kmgtpe]i?)?b?", re.ASCII | re.IGNORECASE)
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN: Final = re.compile(
    rf"(?=.{{4,253}}\Z)(?:{_LABEL}\.)+[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?", re.ASCII
)
_ORIGIN: Final = re.compile(
    r"(?!http://[^/]*:80\Z|https://[^/]*:443\Z)"
    r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?",
    re.ASCII,
)
_ACME_DIRECTORY: Final = re.compile(r"https://[^/\s\"{}]+(?:/[^\s\"{}]*)?", re.ASCII)
_GREATEST_PORT: Final = 65_535
_POSTGRES: Final = frozenset({"postgresql", "postgres"})
_REDIS: Final = frozenset({"redis", "rediss", "redis+cluster", "rediss+cluster", "unix", "sentinel"})


def database_url(text: str) -> str | None:
    """Return why a text is no URL of a database: most often a sign in its password ends the password."""
    parts = _parts(text)
    if parts is not None and parts.scheme not in _POSTGRES:
        return "is no URL of a database: write it like postgresql://USER@HOST/DATABASE"
    if parts is None or not _is_whole(parts):
        return (
            "can't be read, perhaps a sign of its password ends it: leave the password out and name its file "
            "in DATABASE_PASSWORD_FILE, or write the sign percent-encoded, @ as %40"
        )
    if "," in parts.netloc.rpartition("@")[2] and "target_session_attrs=" not in parts.query:
        return "names several hosts, perhaps a standby: write ?target_session_attrs=primary at its end"
    return None


def redis_url(text: str) -> str | None:
    """Return why a text is no URL of a Redis."""
    parts = _parts(text)
    if parts is not None and parts.scheme not in _REDIS:
        return (
            "is no URL of a Redis: write it like redis://HOST:6379/0, sentinel://HOST:PORT/MASTER or "
            "redis+cluster://HOST:PORT,HOST:PORT"
        )
    if parts is None or not _is_whole(parts):
        return (
            "can't be read, perhaps a sign of its password ends it: write the sign percent-encoded, @ as %40"
        )
    return None


def with_password(url: str, password: str) -> str:
    """Return the URL with a password, whatever signs that has, in place of the one it may name."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    if not at or not user:
        raise ValueError(
            "names no user whose password it could be: write it like postgresql://USER@HOST/DATABASE"
        )
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{hosts}").geturl()


def without_password(url: str) -> str:
    """Return a URL for people: `***` in place of its password, and of all of it where that can't be found."""
    parts = _parts(url)
    if parts is None or not _is_whole(parts) or "password" in parts.query:
        return HIDDEN
    login, at, hosts = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    return parts._replace(netloc=f"{user}{colon}{password and HIDDEN}{at}{hosts}").geturl()


def time(text: str) -> str | None:
    """Return why a text is no time as Caddy reads it."""
    return None if text == "0" or _TIME.fullmatch(text) else "is no time: write it like 10s, 5m or 1h30m"


def drain(text: str) -> str | None:
    """Return why a text is no time for which Caddy may drain, which is LONGEST_DRAIN_S at most."""
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    too_long = f"is too long: write {LONGEST_DRAIN_S // 60}m or less"
    return time(text) or (too_long if seconds > LONGEST_DRAIN_S else None)


def size(text: str) -> str | None:
    """Return why a text is no number of bytes as Caddy reads it."""
    return None if _SIZE.fullmatch(text) else "is no size: write it like 32MiB"


def port(text: str) -> str | None:
    """Return why a text is no port."""
    is_one = text.isascii() and text.isdecimal() and 0 < int(text) <= _GREATEST_PORT
    return None if is_one else f"is no port: write one from 1 to {_GREATEST_PORT}"


def switch(text: str) -> str | None:
    """Return why a text is no switch."""
    return None if text in {"on", "off"} else "is neither: write on or off"


def boolean(text: str) -> str | None:
    """Return why a text is no boolean of a Compose file."""
    return None if text in {"true", "false"} else "is neither: write true or false"


def networks(text: str) -> str | None:
    """Return why a text is no list of addresses and networks."""
    for each in text.replace(",", " ").split():
        try:
            ip_network(each, strict=False)
        except ValueError:
            return "is no list of networks: write them like 10.0.0.0/24 192.0.2.7"
    return None


def domain(text: str) -> str | None:
    """Return why a text is no domain that a certificate could be issued for."""
    return None if _DOMAIN.fullmatch(text) else "is no domain: write it like gw.example.com, without https://"


def origins(text: str) -> str | None:
    """Return why a text is neither `*` nor a list of origins as browsers send them (RFC 6454, 6.2)."""
    if text == "*" or (text and all(_ORIGIN.fullmatch(each) for each in text.split(" "))):
        return None
    return (
        "is no list of origins: write each as browsers send it, like https://chat.example.com, in lower case "
        "and without a port that is usual, with one space between two, or * for all"
    )


def acme_directory(text: str) -> str | None:
    """Return why a text is no directory of ACME, which is never plain HTTP (RFC 8555, 6.1)."""
    is_one = _ACME_DIRECTORY.fullmatch(text) is not None
    return None if is_one else "is no URL of a directory: write it like https://ca.example.com/acme/directory"


def any_text(text: str) -> str | None:
    """Return None, except for what could end the line that it stands in."""
    return "holds a control character: write it on one line" if re.search(r"[\x00-\x1f\x7f]", text) else None


def _parts(text: str) -> SplitResult | None:
    try:
        return None if re.search(r"\s", text) else urlsplit(text)
    except ValueError:
        return None


def _is_whole(parts: SplitResult) -> bool:
    """Return whether nothing of the login spilled into the host, the path, the query or the fragment."""
    try:
        parse_qsl(parts.query, strict_parsing=True)
    except ValueError:
        if parts.query:
            return False
    is_spilled = bool(parts.fragment) or "@" in parts.path + parts.query
    return _AUTHORITY.fullmatch(parts.netloc) is not None and not is_spilled
