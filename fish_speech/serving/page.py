"""The page at `/`: typing, choosing, listening, comparing. One answer that refers to nothing outside itself.

Its policy allows its own style and script, by their hashes, and requests to this server: nothing else runs or loads,
whatever a text or a voice's name holds.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from dataclasses import asdict
from pathlib import Path

from ..versions import SamplingDefaults

_FOLDER = Path(__file__).parent / "page"


@functools.cache
def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@functools.cache
def render(sampling: SamplingDefaults) -> str:
    """The whole page; `sampling` is what its fields hold at first."""
    text = _asset("page.html")
    for name, value in asdict(sampling).items():
        text = text.replace(f'value="{{{name}}}"', f'value="{value:g}"')
    return text.replace("/*style*/", _asset("page.css")).replace("/*script*/", _asset("page.js"))


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
