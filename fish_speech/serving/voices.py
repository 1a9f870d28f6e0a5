"""The voices that the server offers: its own, called `default`, and those of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .errors import ApiError

if TYPE_CHECKING:
    from ..synthesis.speak import Speaker
    from ..synthesis.voice_library import ListedVoice
    from ..synthesis.voices import Reference

DEFAULT = "default"
_NAMED = 20  # voices in an error message


class VoiceShelf:
    """Finds references by the names of voices. A voice of the folder that is called `default` is hidden."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.default: Sequence[Reference] = ()
        self.speaker: Speaker | None = None  # set when it is loaded

    def rows(self) -> list[dict[str, Any]]:
        """The voices that this model can use, as the API tells them, the default one first. Reads the folder."""
        own = {"id": DEFAULT, "object": "voice", "seconds": None, "text": None}
        found = [voice for voice in self._listed() if voice.problem is None and self._fits(voice.name)]
        return [own, *({"id": v.name, "object": "voice", "seconds": v.seconds, "text": v.text} for v in found)]

    def _fits(self, name: str) -> bool:
        """Whether the codes of a voice are such that the model knows; those of another version are not."""
        from ..synthesis.voices import read_codes

        if self.speaker is None:
            return True
        config = self.speaker.model.config
        try:
            read_codes(self._folder / f"{name}.npy", config.num_codebooks, config.codebook_sizes)
        except UserError:
            return False
        return True

    def references(self, name: str | None) -> Sequence[Reference]:
        """What a voice imitates. Raises ApiError for an unknown one (404), and for no name or a spoilt voice (400)."""
        if name is None or name == DEFAULT:
            return self.default
        from ..speaking.references import ReferenceChoice, find_references, read_references

        assert self.speaker is not None
        try:
            files = find_references(ReferenceChoice(voice=name, voices_folder=self._folder))
            return read_references(files, self.speaker)
        except UserError as error:
            raise self._why_not(name, error) from None

    def _why_not(self, name: str, error: UserError) -> ApiError:
        """What to tell a client, which does not need to know where the voices lie."""
        names = [voice.name for voice in self._listed()]
        if name in names:
            return ApiError(400, f"the voice {name} cannot be used: {error.why}", "unusable_voice", "voice")
        if not name.isprintable() or set(name) & set('/\\:*?"<>|') or not name.strip(". "):
            return ApiError(400, f"this is no name of a voice: {error.why}", "invalid_value", "voice")
        known = ", ".join([DEFAULT, *names][:_NAMED]) + (", ..." if len(names) >= _NAMED else "")
        return ApiError(404, f"there is no such voice; there are: {known}", "voice_not_found", "voice")

    def _listed(self) -> list[ListedVoice]:
        from ..synthesis.voice_library import list_voices

        rate = None if self.speaker is None else self.speaker.codec.frame_rate
        return [voice for voice in list_voices(self._folder, rate) if voice.name != DEFAULT]
