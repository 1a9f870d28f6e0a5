"""From one address to its recordings: lists are followed, failures are recorded, and what is there is kept."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import UserError
from .address import checked, shown, text_line
from .fetch import Fetcher
from .index import Download, Index
from .reasons import Refused, reason
from .session import open_session
from .youtube import advice

log = logging.getLogger(__name__)

MAX_ENTRIES = 10_000  # of one address
MAX_DEPTH = 5  # playlists in playlists, pages that lead to pages


def download(
    url: str,
    folder: Path,
    max_duration_s: float | None = None,
    subtitles: str | None = None,
    show_progress: bool = True,
) -> list[Download]:
    """Fetch the audio of everything behind `url` into `folder` and return it in order; what failed is in the list.

    A playlist, channel or feed means all its entries. A watch page (`watch?v=...&list=...`) means its one video, even
    if it was opened from a playlist. What the index has is not fetched again, and when it has everything the network
    is not asked at all: to see what is new in a playlist, delete `downloads.json` (the recordings stay).
    `subtitles` is a language: subtitles that people made in it are put beside the audio under the same name.
    `max_duration_s` is told to the user only; the caller applies it. Raises UserError for an address that is none or
    not http(s), and when yt-dlp is missing; OSError if `folder` cannot be written.
    """
    url = checked(url)
    with _locked(folder):
        index = Index(folder)
        kept = index.recordings_of(url, subtitles)
        if kept is not None:
            log.info("%s: downloaded before: %d recordings in %s", shown(url), len(kept), folder)
            return kept
        with open_session(show_progress) as session:
            fetcher = Fetcher(session, index, url, max_duration_s, subtitles)
            return _Run(fetcher).recordings()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        why = "two runs would write into the same files"
        raise UserError(f"another run is downloading into {folder}", why, "wait for it, or end it") from None
    try:
        yield
    finally:
        lock.release()


class _Run:
    """Walks from one address to its recordings and fetches what the index lacks."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._session, self._index, self._url = fetcher.session, fetcher.index, fetcher.url
        self._keys: dict[str, None] = {}  # in order; a recording that is listed twice counts once

    def recordings(self) -> list[Download]:
        before = self._index.keys_of(self._url)
        self._visit({"_type": "url", "url": self._url}, shown(self._url), shown(self._url), 0)
        keys = list(self._keys)
        if keys == [shown(self._url)] and before and before != keys and not self._index.has(keys[0], None):
            # The list itself cannot be had now: what it had last time is still of use.
            log.warning(
                "%s: %s; going on with the recordings of last time", keys[0], self._index.result(keys[0]).failed
            )
            del self._index.records[keys[0]]
            keys = before
        if not keys:
            keys = [shown(self._url)]
            self._index.records[keys[0]] = {"url": keys[0], "failed": "no media: the list is empty"}
        self._index.addresses[shown(self._url)] = keys
        self._index.save()
        return [self._index.result(key) for key in keys]

    def _visit(self, entry: dict, key: str, page: str, depth: int) -> None:
        """Fetch what `entry` leads to; a failure is recorded and the others go on."""
        if key in self._keys:
            return
        if self._index.has(key, self._fetcher.subtitles):
            self._keys[key] = None
            return
        record: dict[str, Any] = {"url": page, "title": text_line(entry.get("title"))}
        try:
            if depth >= MAX_DEPTH or len(self._keys) >= MAX_ENTRIES:
                raise Refused(f"too many: more than {MAX_ENTRIES} entries, or lists in lists {MAX_DEPTH} deep")
            info = self._resolved(entry)
            if info.get("_type") in ("playlist", "multi_video"):
                self._visit_list(info, page, depth)
                return
            record |= {"title": text_line(info.get("title")), "id": text_line(info.get("id"))}
            record["uploader"] = next(
                (text for k in ("uploader", "channel", "creator") if (text := text_line(info.get(k)))), None
            )
            record["extractor"] = text_line(info.get("extractor"))
            record |= self._fetcher.fetch(info)
        except Exception as error:  # thousands of extractors read pages that anyone may write: any of them may break
            record["failed"] = reason(error, self._url)
            record["failed"] += advice(error, record, self._session)
            log.warning("%s: %s", page, record["failed"])
            log.debug("what yt-dlp raised", exc_info=True)
        self._keys[key] = None
        self._index.records[key] = record
        self._index.save()

    def _visit_list(self, info: dict, page: str, depth: int) -> None:
        common = {name: info.get(name) for name in ("extractor", "extractor_key", "webpage_url") if info.get(name)}
        for entry in info.get("entries") or ():
            if not entry:
                continue
            if entry.get("_type", "video") in ("url", "url_transparent"):
                key = child = shown(str(entry.get("url")))
            else:  # the page itself holds it
                entry = {**common, **entry}
                media = urlsplit(str(entry.get("url") or (entry.get("formats") or [{}])[0].get("url"))).path
                key, child = f"{page} [{text_line(entry.get('id'))} {text_line(media)}]", page
            self._visit(entry, key, child, depth + 1)

    def _resolved(self, entry: dict) -> dict:
        """Follow an entry to a list, or to a recording with its format chosen."""
        for _ in range(MAX_DEPTH):
            kind = entry.get("_type", "video")
            if kind in ("playlist", "multi_video"):
                return entry
            if kind != "url":
                result = self._session.process_ie_result(dict(entry), download=False)
                if not result:
                    raise Refused("no media: nothing was found there")
                return result
            entry = self._session.extract_info(
                entry["url"], download=False, ie_key=entry.get("ie_key"), process=False
            ) or {"_type": "playlist", "entries": ()}
        raise Refused("no media: the address leads to another one again and again")
