"""Which backends the containers of a machine are, as `docker inspect` describes them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import msgspec
from attrs import frozen

from authz.backends.backend import Backend, checked
from authz.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EMBEDDED: Final = "embedded"
"""The name of the backend on a network that is called `*internal*`."""
PROXY: Final = "proxy"
"""The network that a backend is attached to where it shares none with the gateway."""
_INTERNAL: Final = "*internal*"
_IMAGE: Final = re.compile(r"(?:docker\.io/)?ollama/ollama(?:[:@].*)?")
_PORT: Final = re.compile(r".*:([0-9]{1,5})/?")
_DEFAULT_PORT: Final = "11434"
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_MOST_NAME: Final = 32


class _Config(msgspec.Struct, rename="pascal"):
    image: str
    env: list[str] | None = None


class _NetworkSettings(msgspec.Struct, rename="pascal"):
    networks: dict[str, msgspec.Raw] | None = None


class _Inspected(msgspec.Struct, rename="pascal"):
    id: str = msgspec.field(name="Id")
    name: str
    config: _Config
    network_settings: _NetworkSettings


@frozen
class Container:
    """A running container: its name, its image, its networks and what Ollama reads from its environment."""

    id: str
    name: str
    image: str
    networks: tuple[str, ...]
    port: str
    is_guarded: bool
    token: str | None

    @property
    def is_ollama(self) -> bool:
        """Return whether it runs the image ollama/ollama, of any tag."""
        return _IMAGE.fullmatch(self.image) is not None

    @property
    def is_internal(self) -> bool:
        """Return whether it is on an internal network: then it belongs to the gateway."""
        return any(fnmatchcase(network, _INTERNAL) for network in self.networks)


@frozen
class Wiring:
    """The list that follows from the containers, and which of them must be attached to `proxy` first."""

    backends: tuple[Backend, ...]
    attached: tuple[str, ...]


def parse(inspected: bytes) -> tuple[Container, ...]:
    """Parse what `docker inspect` printed, in its order. Raises CommandError if that is nothing known."""
    try:
        found = msgspec.json.decode(inspected, type=list[_Inspected])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CommandError(
            f"docker inspect printed what this program can't read ({error}): update one of the two."
        ) from error
    return tuple(map(_container, found))


def wire(containers: Sequence[Container], gateway: Container) -> Wiring:
    """Make the list: the embedded backend first, the others in the order in which they were found.

    Raises CommandError, with the fix, for a backend that wants a token without having one.
    """
    ollamas = [container for container in containers if container.is_ollama]
    if not ollamas:
        raise CommandError("No container of ollama/ollama runs: start one, then run this again.")
    for container in ollamas:
        if container.is_guarded and not container.token:
            raise CommandError(
                f"The container {container.name} has OLLAMA_AUTH on and OLLAMA_AUTH_TOKEN empty: set "
                f"OLLAMA_AUTH_TOKEN in its environment, recreate it, then run this again."
            )
    attached = tuple(each.name for each in ollamas if not set(each.networks) & set(gateway.networks))
    if attached and PROXY not in gateway.networks:
        raise CommandError(
            f"The container {attached[0]} shares no network with the gateway, which is not on {PROXY} "
            f"either: run `docker network connect {PROXY} {gateway.name}`, then run this again."
        )
    ordered = sorted(ollamas, key=lambda each: not each.is_internal)
    backends: list[Backend] = []
    for number, container in enumerate(ordered):
        is_embedded = number == 0 and container.is_internal
        name = EMBEDDED if is_embedded else _free_name(container.name, backends)
        url = f"http://{container.name}:{container.port}"
        backends.append(checked(Backend(name, url, container.token)))
    return Wiring(tuple(backends), attached)


def _container(inspected: _Inspected) -> Container:
    variables = dict(entry.split("=", 1) for entry in inspected.config.env or () if "=" in entry)
    port = _PORT.fullmatch(variables.get("OLLAMA_HOST", ""))
    return Container(
        inspected.id,
        inspected.name.lstrip("/"),
        inspected.config.image,
        tuple(inspected.network_settings.networks or ()),
        port[1] if port else _DEFAULT_PORT,
        variables.get("OLLAMA_AUTH", "").strip().lower() in _TRUE,
        variables.get("OLLAMA_AUTH_TOKEN", "").strip() or None,
    )


def _free_name(container: str, taken: Iterable[Backend]) -> str:
    """Make a backend's name of a container's, which may hold more kinds of characters."""
    plain = re.sub(r"[^a-z0-9]+", "-", container.lower()).strip("-")[:_MOST_NAME].strip("-") or "ollama"
    names, name, number = {backend.name for backend in taken} | {EMBEDDED}, plain, 2
    while name in names:
        name, number = f"{plain[: _MOST_NAME - 4]}-{number}", number + 1
    return name
