"""Which speaker of a voice: by id, as the Piper client takes it, or by name."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path

from fish_speech.errors import UserError

from ..voice_config import VoiceConfig

log = logging.getLogger(__name__)

_SHOWN = 10
_LONGEST_NUMBER = 9  # digits


def speaker_id(config: VoiceConfig, speaker: int | str | None, path: Path) -> int | None:
    """The id of a speaker by id or name; None in a voice of one speaker. `path` names the voice in errors.

    A number is an id, as for the Piper client, even if there is a speaker of that name. Raises UserError for a speaker
    that the voice does not have.
    """
    if speaker is None:
        number = config.default_speaker_id
    elif isinstance(speaker, int) or _is_id(speaker, config.num_speakers):
        number = int(speaker)
        named = config.speaker_id_map.get(str(speaker), number)
        if named != number:
            log.warning("speaker %s is taken as an id; the speaker of that name has the id %d", speaker, named)
    else:
        number = config.speaker_id_map.get(speaker, -1)
    if not 0 <= number < config.num_speakers:
        raise _no_speaker(config, str(speaker), path)
    return number if config.num_speakers > 1 else None


def _is_id(speaker: str, num_speakers: int) -> bool:
    return speaker.isdecimal() and len(speaker) <= _LONGEST_NUMBER and int(speaker) < num_speakers


def _no_speaker(config: VoiceConfig, speaker: str, path: Path) -> UserError:
    if config.num_speakers == 1:
        return UserError(f"there is no speaker {speaker}", f"{path} has one speaker", "drop --speaker")
    names = list(config.speaker_id_map)
    close = difflib.get_close_matches(speaker, names, 3)
    shown = ", ".join(close or names[:_SHOWN]) or "none"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN and not close else ""
    return UserError(
        f"there is no speaker {speaker}",
        f"{path} has the ids 0 to {config.num_speakers - 1}; names{' like it' if close else ''}: {shown}{more}",
        "give --speaker one of them",
    )
