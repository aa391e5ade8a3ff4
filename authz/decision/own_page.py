"""The page at /me, where the holder of a key sees its use and its limits.

It is the same for everybody and has no secret: it asks for the key, keeps it in its own memory, and calls
/v1/usage and /v1/limits with it. Its policy lets no other script or style run, and nothing else be asked.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Final

from litestar import Response

_HTML: Final = Path(__file__).with_name("me.html").read_text(encoding="utf-8")


def _source(tag: str) -> str:
    """Return the hash by which a policy allows the one inline element of a tag (CSP 3, 2.3.1)."""
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", _HTML, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY: Final = (
    f"default-src 'none'; script-src {_source('script')}; style-src {_source('style')}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS: Final = {
    "content-security-policy": POLICY,
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


async def page() -> Response[str]:
    """Answer with the page; it needs no key to be seen."""
    return Response(_HTML, headers=HEADERS, media_type="text/html")
