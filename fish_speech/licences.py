"""Whose rights a voice touches: the base's licence, notices that came with the recordings, and the speaker's consent.

These are notes for the person who shares a voice, in the words of the licences' own summaries. They are no legal advice.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .prepare.manifest import MANIFEST
from .versions import read_voice

BASE_NOTICE, DATA_NOTICE = "LICENCE-base.txt", "LICENCE-data.txt"
NOTICE_FILES = (BASE_NOTICE, DATA_NOTICE)
_NON_COMMERCIAL = (
    "A merged model is an adaptation of these weights: share it only under the same licence and for no commercial "
    "purpose, name Fish Audio as the source, link the licence, and say that you changed the weights."
)
LICENCES = {  # by model version: licence, its page, what it means for a voice made of it
    "1.5": ("CC-BY-NC-SA 4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/", _NON_COMMERCIAL),
    "s1-mini": ("CC-BY-NC-SA 4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/", _NON_COMMERCIAL),
    "minnow": (
        "CC-BY-SA 3.0",
        "https://creativecommons.org/licenses/by-sa/3.0/",
        "A merged model is an adaptation: share it under the same licence and keep the notice of its sources, "
        f"{BASE_NOTICE}, with every copy.",
    ),
}
CONSENT = (
    "This pack speaks in somebody's voice and holds a clip of it. Make, use and share it only with the speaker's consent, "
    "and tell listeners that the speech is made by a machine."
)
_NAMES = re.compile(r"(licen[cs]e|copying|notice|readme)([.-].{0,20})?", re.IGNORECASE)
_LICENCE_LINE = re.compile(r"\blicen[cs]e|\bcopyright\b|\(c\)|©|creative ?commons|\bCC[- ]?(BY|0)", re.IGNORECASE)
_SUFFIXES = frozenset(("", ".md", ".txt", ".rst"))
_LARGEST_NOTICE = 256 << 10  # bytes
_MOST_NOTICES, _MOST_FOLDERS, _MOST_NOTES = 8, 64, 64
_LARGEST_MANIFEST = 1 << 28  # bytes


def licence_notes(
    version: str, base: Path, data: Path | None, pack: Path | None = None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Notes for voice.json, and the notices to copy into the pack: text by file name.

    A base that is itself a pack hands its notes and notices on. Where the data is not here any more, the notice that
    the folder `pack` already has stays.
    """
    inherited = _notes_of(base)
    notes = [note for note in inherited if note.get("of") != "speaker"]
    if not notes and version in LICENCES:
        licence, page, meaning = LICENCES[version]
        notes.append({"of": f"base weights ({version})", "licence": licence, "url": page, "note": meaning})
    notices = {}
    for name, what, folders in (
        (BASE_NOTICE, "base weights", [base]),
        (DATA_NOTICE, "recordings", [] if data is None else list(_folders_of(data))),
    ):
        kept = pack / name if pack is not None and name == DATA_NOTICE and data is None else None
        own = kept if kept is not None and kept.is_file() else base / name  # what a base pack got of its base or data
        found = ([own] if own.is_file() else []) + _notices_in(folders)
        text = "\n\n".join(dict.fromkeys(filter(None, (_read_notice(path) for path in found))))
        if not text:
            continue
        notices[name] = text + "\n"
        note = {
            "of": what,
            "file": name,
            "note": f"Keep {name} with every copy; what it says holds for this voice too.",
        }
        if note not in notes:
            notes.append(note)
    notes.append({"of": "speaker", "note": CONSENT})
    return notes, notices


def _notes_of(base: Path) -> list[dict[str, Any]]:
    """The licence notes in the base's voice.json, if it is a pack."""
    notes = read_voice(base).get("licences")
    if not isinstance(notes, list):
        return []
    return [note for note in notes[:_MOST_NOTES] if isinstance(note, dict) and len(json.dumps(note)) < 10_000]


def _folders_of(data: Path) -> Iterator[Path]:
    """Where notices about a data set may lie: in it, and where its recordings came from (the manifest says).

    Of INPUT/SPEAKER/clip, the layout that names speakers, INPUT is looked at too; nothing further up.
    """
    yield data
    yield from sorted(path for path in data.iterdir() if path.is_dir())[:_MOST_FOLDERS]
    sources: dict[Path, None] = {}
    path = data / MANIFEST
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            return
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                source = row.get("source")
                if row.get("clip") is None or not isinstance(source, str) or not Path(source).is_absolute():
                    continue
                folder = Path(source).parent
                sources[folder] = None
                if folder.name == row.get("speaker"):
                    sources[folder.parent] = None
    except (OSError, ValueError, AttributeError, RecursionError):
        pass  # without a whole manifest, the data folder must do
    yield from list(sources)[:_MOST_FOLDERS]


def _notices_in(folders: Iterable[Path]) -> list[Path]:
    """Files that tell of a licence by their name, or a README by a line of it."""
    found: list[Path] = []
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if _NAMES.fullmatch(entry.name) and entry.is_file())
        except (OSError, ValueError):
            continue
        for name in names:
            path = folder / name
            if Path(name).suffix.lower() in _SUFFIXES and name not in NOTICE_FILES and path not in found:
                text = _read_notice(path)
                if text and (_LICENCE_LINE.search(text) or not name.lower().startswith("readme")):
                    found.append(path)
    return found[:_MOST_NOTICES]


def _read_notice(path: Path) -> str | None:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_NOTICE:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:  # an old notice with its (c) sign in Latin-1 holds all the same
        return None if b"\0" in data else data.decode("cp1252", "replace").strip()
