"""The index of a download folder: what was fetched, so that a second run needs no network."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from ...files import write_json
from .address import shown, text_line

log = logging.getLogger(__name__)

INDEX_NAME = "downloads.json"


@dataclass(frozen=True)
class Download:
    """A recording that an address leads to, fetched or not. All text is one printable line."""

    url: str  # what the user gave, or the playlist entry's page
    path: Path | None  # the audio file, None if it could not be had
    title: str | None
    uploader: str | None
    failed: str | None  # one-line reason, "category: details"


class Index:
    """What `folder` holds: `addresses` (address -> keys of its recordings, in order) and `recordings` (key -> record)."""

    def __init__(self, folder: Path):
        self.folder, self._path = folder, folder / INDEX_NAME
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            data = {}
        except (ValueError, RecursionError):
            log.warning("%s is damaged and is made anew", self._path)
            data = {}
        tables = [data.get(name) if isinstance(data, dict) else None for name in ("addresses", "recordings")]
        self.addresses, self.records = (dict(table) if isinstance(table, dict) else {} for table in tables)

    def path_of(self, record: dict) -> Path | None:
        """Return the record's file if it is there in the size that was fetched."""
        name = record.get("file")
        if not isinstance(name, str) or name != Path(name).name:
            return None
        path = self.folder / name
        return path if path.is_file() and path.stat().st_size == record.get("size") else None

    def has(self, key: str, subtitles: str | None) -> bool:
        """Whether nothing of this recording is left to fetch."""
        record = self.records.get(key)
        if not isinstance(record, dict) or self.path_of(record) is None:
            return False
        return subtitles is None or record.get("subtitles") == subtitles

    def keys_of(self, url: str) -> list[str]:
        """Return the keys of what `url` led to when it was listed to the end; none if it never was."""
        keys = self.addresses.get(shown(url))
        return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []

    def recordings_of(self, url: str, subtitles: str | None) -> list[Download] | None:
        """Return everything behind `url` if it is all here."""
        keys = self.keys_of(url)
        return [self.result(key) for key in keys] if keys and all(self.has(key, subtitles) for key in keys) else None

    def result(self, key: str) -> Download:
        """Return a record as the caller sees it."""
        record = self.records.get(key)
        record = record if isinstance(record, dict) else {}
        path = self.path_of(record)
        failed = None if path else text_line(record.get("failed")) or "missing: the file is no longer in the folder"
        page, title, uploader = (text_line(record.get(name)) for name in ("url", "title", "uploader"))
        return Download(page or key, path, title, uploader, failed)

    def is_damaged(self, path: Path) -> bool:
        """Whether `path` is not what was fetched. A file without a record was complete when it got its name."""
        sizes = [r.get("size") for r in self.records.values() if isinstance(r, dict) and r.get("file") == path.name]
        return path.exists() and (path.stat().st_size == 0 or bool(sizes and path.stat().st_size not in sizes))

    def save(self) -> None:
        write_json(self._path, {"version": 1, "addresses": self.addresses, "recordings": self.records})
