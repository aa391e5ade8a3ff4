"""The least application that can stand where authz stands: a 204 with a header as long as a Grant."""

from authz.stack.demo.exchange import Receive, Scope, Send

_START = {"type": "http.response.start", "status": 204, "headers": [(b"x-nz-grant", b"x" * 900)]}
_END = {"type": "http.response.body", "body": b""}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer any request."""
    await send(_START)
    await send(_END)
