"""voice.json beside an exported voice: what it was made of, and whose rights it touches; with the notices to keep.

A taught voice hands on what its teacher's licence asks for: the data set that the teacher has read tells it.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fish_speech import __version__
from fish_speech.checkpoint import sha256
from fish_speech.files import write_json, write_text
from fish_speech.licences import NOTICE_FILES, licence_notes
from fish_speech.versions import VOICE_FILE, read_voice

from ..quality import quality_of
from .places import Places
from .starts import read_record

log = logging.getLogger(__name__)

_NOWHERE = Path("nowhere", "at", "all")  # the base of a voice that has none
SPEAKER = (
    "This voice is somebody's. Make, use and share it only with the speaker's consent, and tell listeners that the speech is "
    "made by a machine."
)


def write(places: Places, checkpoint: Path) -> Path:
    """Write voice.json and the notices beside the project's voice, which was exported from `checkpoint`.

    What is right already stays untouched; a notice that holds no more is removed.
    """
    from ..checkpoints import read_checkpoint

    project = read_record(places)
    data = Path(str(project["data"])) if project.get("data") else None
    folder = places.voice.parent
    before = read_voice(folder)
    notes, notices = licences(data, project.get("warm_start"))
    taught_by = read_voice(data).get("teacher") if data else None
    if data is not None and not data.is_dir() and isinstance(before.get("licences"), list):
        # The data set is gone; what it asked for was written down when it was there, and still holds.
        notes, taught_by = before["licences"], before.get("taught_by")
        notices = {
            name: (folder / name).read_text(encoding="utf-8") for name in NOTICE_FILES if (folder / name).is_file()
        }
    read = read_checkpoint(checkpoint)
    config = read.model_config()
    told: dict[str, Any] = {
        "format": 1,
        "engine": "piper",
        "toolkit": __version__,
        "project": places.project,
        "voice": places.voice.name,
        "sha256": sha256(places.voice),
        "quality": quality_of(config),
        "sample_rate": config.sample_rate,
        "espeak_voice": project.get("espeak_voice"),
        "checkpoint": str(checkpoint),
        "epochs": read.epochs_done,
        "warm_start": project.get("warm_start"),
        "data": str(data) if data else None,
        "taught_by": taught_by,
        "licences": notes,
    }
    if {name: value for name, value in before.items() if name != "date"} != told:
        write_json(folder / VOICE_FILE, {**told, "date": datetime.now(timezone.utc).isoformat(timespec="seconds")})
    for name in NOTICE_FILES:
        if name in notices and not _says(folder / name, notices[name]):
            write_text(folder / name, notices[name])
            log.info("%s: the notice to keep with every copy", folder / name)
        elif name not in notices:
            (folder / name).unlink(missing_ok=True)
    return folder / VOICE_FILE


def _says(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def licences(data: Path | None, warm_start: object) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Notes and notices (text by file name) of a voice that was trained on `data`, from the weights of `warm_start`."""
    there = data if data is not None and data.is_dir() else None
    taught = there is not None and bool(read_voice(there).get("licences"))
    base = there if taught and there is not None else _NOWHERE
    notes, notices = licence_notes("", base, None if taught else there)
    notes = [{**note, "note": SPEAKER} if note.get("of") == "speaker" else note for note in notes]
    if taught:
        notes = [{**note, "of": str(note.get("of")).replace("base weights", "the teacher's weights")} for note in notes]
    if warm_start:
        note = (
            f"Training began with the weights of {Path(str(warm_start)).name}: what their licence asks for holds for this "
            "voice too. Published voices state it in their MODEL_CARD."
        )
        notes.insert(0, {"of": "checkpoint to start from", "note": note})
    return notes, notices


def write_teachers(data: Path, teacher: Path) -> None:
    """Write into a data set that `teacher` has read what the teacher's licence asks of what is made with it."""
    from fish_speech.versions import version_of_folder

    version = version_of_folder(teacher)
    notes, notices = licence_notes(version.name if version else "", teacher, None)
    for name, text in notices.items():
        write_text(data / name, text)
    write_json(data / VOICE_FILE, {"teacher": str(teacher), "licences": notes})
