"""Post an alert as JSON to GATEWAY_ALERT_URL; its `text` is what Slack, Mattermost and others show."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
from attrs import frozen

from authz import secret_file
from authz.backends import probe

if TYPE_CHECKING:
    from datetime import datetime

    from authz.alerts.book import Due
    from authz.settings import Settings

TIMEOUT_S: Final = 10.0
"""For one post, from the connection to the answer's head."""

RAISED: Final = "raised"
RECOVERED: Final = "recovered"


class Unposted(Exception):
    """The receiver has not taken an alert; its text continues "the receiver"."""


@frozen
class Webhook:
    """Where alerts are posted to; its URL may hold a secret, and stands in no log."""

    url: str
    token: str | None

    @classmethod
    def of(cls, settings: Settings) -> Webhook | None:
        """Return the receiver of the settings, None if they name none. Raises SettingsError."""
        token = settings.alert_token_file and secret_file.read(
            "GATEWAY_ALERT_TOKEN_FILE", settings.alert_token_file
        )
        return cls(settings.alert_url, token or None) if settings.alert_url else None

    async def post(self, body: bytes) -> int:
        """Post a body once; return the status, which is 2xx. Raises Unposted."""
        headers = {"content-type": "application/json", "user-agent": "neuronetz-gateway"}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        is_tls = self.url.lower().startswith("https:")
        # Reading all authorities takes 20 ms, in which this process would decide nothing.
        verify = await asyncio.to_thread(ssl.create_default_context) if is_tls else False
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                httpx.AsyncClient(verify=verify, timeout=TIMEOUT_S, trust_env=False) as client,
                # Its body is read by nobody: it might never end.
                client.stream("POST", self.url, content=body, headers=headers) as answer,
            ):
                status = answer.status_code
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Unposted(f"does not answer within {TIMEOUT_S:.0f} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise Unposted(f"does not answer ({probe.words(error)})") from error
        if not httpx.codes.is_success(status):
            raise Unposted(f"answers {status}")
        return status


def body(due: Due) -> bytes:
    """Return the JSON of an alert, or of its recovery; both have the same id."""
    is_recovery = due.is_recovery and due.recovered_at is not None
    state, at = (RECOVERED, due.recovered_at) if is_recovery else (RAISED, due.raised_at)
    head = f"[{RECOVERED}]" if is_recovery else f"[{due.severity}]"
    rest = f"It began at {_time(due.raised_at)}." if is_recovery else due.action
    return msgspec.json.encode(
        {
            "id": str(due.id),
            "name": due.name,
            "severity": due.severity,
            "state": state,
            "at": at and _time(at),
            "tenant": due.tenant,
            "key": due.key,
            "node": due.node,
            "backend": due.backend,
            "value": due.value,
            "summary": due.summary,
            "action": due.action,
            "text": f"{head} {due.summary}. {rest}",
        }
    )


def _time(at: datetime) -> Any:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
