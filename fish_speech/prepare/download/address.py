"""Addresses: which inputs are some, which are allowed, and how one is shown.

Nothing of yt-dlp here: whether an input is an address has to be known before anything heavy is imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ...errors import UserError
from ..names import one_line

_BARE_YOUTUBE = re.compile(r"(www\.|m\.|music\.)?(youtube\.com|youtu\.be)/\S", re.IGNORECASE)
_SMUGGLE = "#__youtubedl_smuggle"  # yt-dlp hides notes to itself behind an address


def is_url(text: str) -> bool:
    """Whether an input is an address rather than a path: it has a scheme, of any kind, or is YouTube's without one."""
    has_scheme = re.match(r"[a-z][a-z0-9+.-]+://|(data|javascript):", text, re.IGNORECASE)
    return bool(has_scheme or _BARE_YOUTUBE.match(text))  # C:\ and C:// are drives: a scheme has two letters or more


def checked(url: str) -> str:
    """Return the address in full, or raise UserError."""
    url = url.strip()
    url = f"https://{url}" if _BARE_YOUTUBE.match(url) else url
    fix = "give the address as the browser shows it: https://..."
    if re.search(r"[\s\x00-\x1f\x7f]", url) or len(url) > 8000:
        raise UserError(f"{one_line(url[:200])!r} is no address", "it has spaces or line breaks, or no end", fix)
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise UserError(f"{one_line(url[:200])!r} is no address", str(error), fix) from None
    if parts.scheme.lower() not in ("http", "https"):
        why = "only http and https are read, so that a page cannot reach files of this machine"
        raise UserError(f"{shown(url)}: {parts.scheme or 'no protocol'} is not supported", why, fix)
    if not host:
        raise UserError(f"{shown(url)} is no address", "it names no server", fix)
    return url


def shown(url: str) -> str:
    """Return an address fit for terminals, manifests and the index: one line, bounded, without a password in it."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url
    url = one_line(url.partition(_SMUGGLE)[0])
    return url if len(url) <= 2000 else f"{url[:2000]}...{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def text_line(value: Any) -> str | None:
    """Return a title or a name from a page as one bounded line, None if there is none."""
    return one_line(" ".join(str(value).split())[:500]) or None if value else None
