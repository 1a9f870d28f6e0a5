"""What stands between yt-dlp and the network: protocols, redirects, sizes, and versions of a file.

Pages are not trusted: no address, size or length that one gives decides what is read or how much of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..names import one_line
from .reasons import Refused

log = logging.getLogger(__name__)

MAX_BYTES = 20_000_000_000  # of one recording
MAX_UNDECLARED_BYTES = 4_000_000_000  # where the server does not say how long it is: a radio never ends
MAX_PAGE_BYTES = 64_000_000  # of a page, a feed or a subtitle file: these are read into memory


class Guard:
    """Wraps yt-dlp's urlopen: http and https only, also after redirects; no radio; no page that fills the memory.

    `tag_path` is where to note which version of a file its partial download is of, None while no file is fetched: a
    server that has another version now would otherwise have its end joined to the beginning of the old one.
    """

    def __init__(self, urlopen: Callable[[Any], Any]):
        self._urlopen = urlopen
        self.tag_path: Path | None = None

    def __call__(self, request: Any) -> Any:
        response = self._open(request)
        if self.tag_path is not None:
            tag = _version_tag(response)
            if response.status == 206 and self.tag_path.is_file() and self.tag_path.read_text(encoding="utf-8") != tag:
                response.close()
                log.info("the file has changed on the server: from the beginning again")
                request.headers.pop("Range", None)
                response = self._open(request)  # no Content-Range in the answer: yt-dlp starts anew
                tag = _version_tag(response)
            self.tag_path.write_text(tag, encoding="utf-8")
        return response

    def _open(self, request: Any) -> Any:
        from yt_dlp.networking.exceptions import HTTPError
        from yt_dlp.utils import sanitize_url

        address = request if isinstance(request, str) else getattr(request, "url", None) or request.full_url
        _check_protocol(sanitize_url(address))
        try:
            response = self._urlopen(request)
        except HTTPError as error:
            _bound(error.response)
            raise
        _check_protocol(response.url)
        names = {name.lower() for name in response.headers}
        if "content-length" not in names and any(name.startswith("icy-") for name in names):
            response.close()
            raise Refused("live stream: a radio that never ends")
        _bound(response)
        return response


def check_size(status: dict[str, Any]) -> None:
    """Raise Refused if a recording is too large, by what its server says or by what came; a hook of yt-dlp's."""
    so_far, total = status.get("downloaded_bytes") or 0, status.get("total_bytes")
    limit = MAX_BYTES if total or status.get("fragment_count") else MAX_UNDECLARED_BYTES
    if max(so_far, total or 0) > limit:
        raise Refused(f"too large: more than {limit / 1e9:g} GB")


def _version_tag(response: Any) -> str:
    """Return what tells one version of a file from another: the server's mark or date, and the length."""
    headers = response.headers
    length = (headers.get("Content-Range") or "").rpartition("/")[2] or headers.get("Content-Length") or ""
    return one_line(f"{headers.get('ETag') or headers.get('Last-Modified') or ''} {length}"[:500])


def _check_protocol(address: str) -> None:
    scheme = address.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        raise Refused(f"unsafe address: it leads to {one_line(scheme[:20])}:, and only http and https are read")


def _bound(response: Any) -> None:
    """Let `response.read()` without a size end at MAX_PAGE_BYTES; media are read in blocks."""
    read = response.read

    def bounded(amount: int | None = None) -> bytes:
        if amount is not None and amount >= 0:
            return read(amount)
        blocks, size = [], 0
        while block := read(1 << 16):
            blocks.append(block)
            size += len(block)
            if size > MAX_PAGE_BYTES:
                raise Refused(f"too large: a page of more than {MAX_PAGE_BYTES / 1e6:g} MB")
        return b"".join(blocks)

    response.read = bounded
