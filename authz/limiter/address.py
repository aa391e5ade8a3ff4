"""REDIS_URL: a pool of redis-py for each Redis that it names, so AUTH, TLS and sockets stay redis-py's job.

redis:// and rediss:// name one Redis, unix:// its socket, sentinel:// the Sentinels of one, and
redis+cluster:// or rediss+cluster:// some nodes of a cluster, which know the others.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import define
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from authz.errors import LimiterUnavailable, SettingsError

CONNECT_WITHIN_S: Final = 3.0

OURS: Final[dict[str, object]] = {
    "protocol": 2,
    "decode_responses": False,
    "driver_info": None,
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_WITHIN_S,
}
"""The options that no REDIS_URL may change: answers as bytes and lists, no retry, our own timeouts."""

CLUSTER: Final = "+cluster"
SENTINEL_PORT: Final = 26379
SENTINEL_WITHIN_S: Final = 1.0


@define
class Server:
    """The Redis that links lead to; only a master of a cluster has a name."""

    name: str = ""
    is_clustered: bool = False
    tag: str = ""
    """The end of a key's name that makes it one of this master's."""
    replicas: int = 0

    def __str__(self) -> str:
        return f"Redis {self.name}".rstrip()

    def naming(self, reason: object) -> LimiterUnavailable:
        """Return an error with a reason that names the server."""
        text = str(reason)
        return LimiterUnavailable(text if self.name in text else text.replace("Redis", str(self), 1))


def is_cluster(url: str) -> bool:
    """Return whether a REDIS_URL names nodes of a cluster."""
    return url.partition("://")[0].endswith(CLUSTER)


def pools(url: str) -> tuple[Any, ...]:
    """Make a pool for each Redis of a URL, untyped as redis-py leaves it. Raises SettingsError if invalid."""
    try:
        found = tuple(_ours(pool) for pool in _pools(url))
        for pool in found:
            pool.make_connection()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"REDIS_URL can't be used: {error}") from error
    return found


def node(url: str, host: str, port: int) -> Any:
    """Make a pool for another node of a cluster: login, TLS and options are those of all."""
    return _ours(_node_pool(urlsplit(url), f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))


def _ours(pool: Any) -> Any:
    pool.connection_kwargs |= OURS
    return pool


def _pools(url: str) -> tuple[Any, ...]:
    if url.startswith("sentinel://"):
        return (_sentinel_pool(urlsplit(url)),)
    if is_cluster(url):
        return _cluster_pools(urlsplit(url))
    return (ConnectionPool.from_url(url),)


def _sentinel_pool(parts: SplitResult) -> Any:
    """Make the pool of the Sentinels' master: sentinel://[USER:PASSWORD@]HOST:PORT,.../MASTER."""
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    sentinels = [urlsplit(f"//{host}") for host in hosts.split(",")]
    addresses = [(sentinel.hostname, sentinel.port or SENTINEL_PORT) for sentinel in sentinels]
    master = parts.path.strip("/")
    if not master or not all(host for host, _ in addresses):
        raise ValueError("write sentinel://HOST:PORT,HOST:PORT/MASTER")
    make_sentinel: Any = Sentinel
    make_pool: Any = SentinelConnectionPool
    watch = make_sentinel(addresses, sentinel_kwargs={"socket_timeout": SENTINEL_WITHIN_S})
    login = {"username": unquote(username) or None, "password": unquote(password) or None}
    return make_pool(master, watch, **login)


def _cluster_pools(parts: SplitResult) -> tuple[Any, ...]:
    """Make the pools of redis+cluster://[USER:PASSWORD@]HOST:PORT,...[?OPTION=VALUE]."""
    hosts = parts.netloc.rpartition("@")[2].split(",")
    found = tuple(_node_pool(parts, host) for host in hosts)
    names_database = parts.path not in {"", "/", "/0"} or found[0].connection_kwargs.get("db")
    if names_database or not all(urlsplit(f"//{host}").hostname for host in hosts):
        raise ValueError("write redis+cluster://HOST:PORT,HOST:PORT, without a database")
    return found


def _node_pool(parts: SplitResult, host: str) -> Any:
    login, at, _ = parts.netloc.rpartition("@")
    one = parts._replace(scheme=parts.scheme.removesuffix(CLUSTER), netloc=f"{login}{at}{host}")
    return ConnectionPool.from_url(one.geturl())
