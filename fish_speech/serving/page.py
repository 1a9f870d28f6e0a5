"""The page at `/`: typing, choosing, listening, comparing. One answer that refers to nothing outside itself.

Its policy allows its own style and script, by their hashes, and requests to this server: nothing else runs or loads,
whatever a text or a voice's name holds.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path

_FOLDER = Path(__file__).parent / "page"


@functools.cache
def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@functools.cache
def render() -> str:
    """The whole page."""
    style, script = _asset("page.css"), _asset("page.js")
    return _asset("page.html").replace("/*style*/", style).replace("/*script*/", script)


@functools.cache
def policy() -> str:
    """The Content-Security-Policy to send with it."""
    style, script = (_hash(_asset(name)) for name in ("page.css", "page.js"))
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; media-src blob:; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
