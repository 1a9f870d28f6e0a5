"""What is told while a recording is fetched: a bar, and yt-dlp's own words for --verbose."""

from __future__ import annotations

import logging
import sys
from typing import Any

from ..names import one_line
from .address import text_line

log = logging.getLogger(__name__)


class Log:
    """Takes what yt-dlp says; for --verbose alone, since failures come back as reasons."""

    def debug(self, message: str) -> None:
        log.debug("yt-dlp: %s", one_line(message.strip()))

    info = warning = error = debug


class Bar:
    """One bar for the recording that is being fetched: bytes, speed, time left."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._file: str | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def hook(self, status: dict[str, Any]) -> None:
        from tqdm import tqdm

        if status.get("filename") != self._file:  # the one before it failed
            self.__exit__()
            self._file = status.get("filename")
        if status.get("status") == "downloading":
            so_far = status.get("downloaded_bytes") or 0
            if self._bar is None:
                what = (text_line((status.get("info_dict") or {}).get("title")) or "download")[:40]
                self._bar = tqdm(
                    desc=what,
                    initial=so_far,
                    unit="B",
                    unit_scale=True,
                    mininterval=0.5 if sys.stderr.isatty() else 60.0,
                    dynamic_ncols=True,
                    file=sys.stderr,
                )
            self._bar.total = status.get("total_bytes") or status.get("total_bytes_estimate")
            self._bar.update(max(0, so_far - self._bar.n))
        elif status.get("status") in ("finished", "error"):
            self.__exit__()
