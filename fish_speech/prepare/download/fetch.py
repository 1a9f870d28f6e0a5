"""Fetch one recording whose format is chosen, and subtitles beside it; what was cut off continues."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...audio import AUDIO_SUFFIXES
from ...files import write_text
from ..names import one_line, safe_name
from .address import text_line
from .index import Index
from .reasons import Refused, reason

log = logging.getLogger(__name__)

_SAME_KIND = {"mpga": "mp3", "weba": "webm", "f4a": "m4a", "m4r": "m4a", "f4v": "mp4", "ogx": "ogg", "ogv": "ogg"} | {
    "spx": "ogg", "3g2": "3gp", "mk3d": "mkv", "asf": "wma", "wmv": "wma", "vorbis": "ogg", "alac": "m4a"
}  # fmt: skip


@dataclass(frozen=True)
class Fetcher:
    """Fetches recordings of one address into the index's folder."""

    session: Any  # yt-dlp's, from open_session
    index: Index
    url: str  # what the user gave; a password in it is kept out of reasons
    max_duration_s: float | None
    subtitles: str | None  # language

    def fetch(self, info: dict) -> dict[str, Any]:
        """Fetch a recording whose format is chosen; return what the index keeps of it. Raises if it cannot be had."""
        if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming", "post_live"):
            raise Refused("live stream: it has no end yet; try again when its recording is published")
        if info.get("acodec") == "none":
            raise Refused("no media: a picture without sound is all that is offered")
        path = self.index.folder / _file_name(info)
        if self.index.is_damaged(path):
            path.unlink()
        duration_s = info.get("duration")
        if self.max_duration_s and duration_s and duration_s > self.max_duration_s:
            told = (text_line(info.get("title")), duration_s / 60, self.max_duration_s / 60)
            log.info("%s: %.1f min long, of which the first %.1f min are asked for", *told)
        self._fetch_audio(info, path)
        record: dict[str, Any] = {"file": path.name, "size": path.stat().st_size}
        if self.subtitles is not None:
            self._write_subtitles(info, path, self.subtitles)
            record["subtitles"] = self.subtitles
        return record

    def _fetch_audio(self, info: dict, path: Path) -> None:
        tag_path = path.with_name(f"{path.name}.version")
        try:
            # One file over http: its partial download can be of another version. Segments are files of their own.
            self.session.urlopen.tag_path = tag_path if info.get("protocol") in ("http", "https") else None
            finished, _ = self.session.dl(str(path), info)
        except Refused:
            for rest in path.parent.glob(f"{path.name}.*"):  # .part, .ytdl and fragments
                rest.unlink()
            raise
        except Exception as error:
            kept = path.with_name(f"{path.name}.part")
            size = kept.stat().st_size if kept.is_file() else 0
            if size:
                why = reason(error, self.url)
                raise Refused(f"{why}; {size} bytes are kept, and the next run continues") from error
            raise
        finally:
            self.session.urlopen.tag_path = None
        if not finished or not path.is_file() or not path.stat().st_size:
            raise Refused("download failed: yt-dlp gave no file")
        tag_path.unlink(missing_ok=True)

    def _write_subtitles(self, info: dict, path: Path, language: str) -> None:
        """Put subtitles that people made beside the audio; a warning if they cannot be had."""
        offered = info.get("subtitles") or {}
        names = sorted(name for name in offered if re.match(rf"{re.escape(language)}(-|_|$)", name, re.IGNORECASE))
        for suffix in ("vtt", "srt"):
            for item in (item for name in names for item in offered[name] if item.get("ext") == suffix):
                if item.get("protocol", "http") not in ("http", "https"):
                    continue
                try:
                    text = item.get("data")
                    if text is None:
                        from yt_dlp.networking import Request

                        headers = item.get("http_headers") or info.get("http_headers") or {}
                        text = self.session.urlopen(Request(item["url"], headers=headers)).read()
                        text = text.decode("utf-8-sig", "replace")
                    write_text(path.with_suffix(f".{suffix}"), text)
                    return
                except Exception as error:
                    log.warning("%s: subtitles: %s", text_line(info.get("title")), reason(error, self.url))


def _file_name(info: dict) -> str:
    """Name the file of a recording: extractor and id to be read, a hash to be unique, a suffix from a fixed list.

    Ids differ by letter case alone, or by site alone, and two formats must not continue each other's partial file.
    """
    kind = str(info.get("ext") or "").lower()
    suffix = f".{_SAME_KIND.get(kind, kind)}"
    if suffix not in AUDIO_SUFFIXES:
        what = f"of kind {one_line(kind[:20])!r}" if kind not in ("", "unknown_video") else "of no known kind"
        raise Refused(f"not audio: the file there is {what}")
    extractor, name = str(info.get("extractor") or "site"), str(info["id"])
    media = urlsplit(info["url"]).path if extractor.startswith("generic") else ""
    what = json.dumps([extractor, name, str(info.get("webpage_url")), media, str(info.get("format_id"))])
    short = safe_name(safe_name(f"{extractor}-{name}", fallback="recording")[:60], fallback="recording")
    return f"{short}-{hashlib.sha256(what.encode()).hexdigest()[:12]}{suffix}"
