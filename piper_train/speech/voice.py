"""A Piper voice as it is given away, NAME.onnx with NAME.onnx.json: text to sound, sentence by sentence.

The arithmetic is that of the Piper client, so that both say the same, sample for sample, where there is no noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fish_speech.errors import UserError

from ..phonemes.ids import PhonemeTable, ids_of_sentence, table_of
from ..voice_config import VoiceConfig
from .lines import pieces_of
from .session import check_fit, check_inputs, config_path, open_session, run_session
from .sound import levelled
from .speakers import speaker_id

if TYPE_CHECKING:
    from ..phonemes.phonemizer import Phonemizer

# Phonemes that are said at once, some 20 s of speech: the decoder of quality medium takes 20 MB of memory for a second.
LONGEST_SENTENCE = 300
_PAUSES = (",", ";", ":")


@dataclass(frozen=True)
class Manner:
    """How to speak; None takes what the voice's config says. Raises ValueError for what makes no sense.

    noise_scale: liveliness of the sound, 0 is none. noise_w: liveliness of the rhythm, 0 is none.
    length_scale: how long each phoneme lasts, 2 is twice as long.
    """

    speaker: int | str | None = None  # id or name
    length_scale: float | None = None
    noise_scale: float | None = None
    noise_w: float | None = None
    sentence_silence_s: float = 0.0  # between two sentences
    normalize: bool = True  # every sentence to full scale
    volume: float = 1.0  # factor, after that

    def __post_init__(self) -> None:
        for name, least, most in (
            ("length_scale", 0.1, 10.0),
            ("noise_scale", 0.0, 10.0),
            ("noise_w", 0.0, 10.0),
            ("sentence_silence_s", 0.0, 60.0),
            ("volume", 0.0, 100.0),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:  # NaN is not
                raise ValueError(f"{name} is {value}; it may be {least:g} to {most:g}")


class OnnxVoice:
    """An exported voice, loaded once, that speaks any number of texts, one at a time. Close it: it may hold a process.

    missing: the phonemes so far that the voice has no id for, and how often each was left out.
    """

    def __init__(
        self, path: Path, config: VoiceConfig, device: str = "auto", seed: int | None = None, threads: int | None = None
    ):
        self.path, self.config = path, config
        self.missing: Counter[str] = Counter()
        self._device, self._threads = device, threads
        self._table = _table_of(path, config)
        self.reseed(seed)

    @classmethod
    def load(cls, path: Path, device: str = "auto", seed: int | None = None, threads: int | None = None) -> OnnxVoice:
        """Load the voice at `path`, a .onnx with its config beside it. Raises UserError.

        seed: start of the noise that the model draws; None takes another one each time.
        """
        return cls(path, read_config(path), device, seed, threads)

    @property
    def sample_rate(self) -> int:
        """Of the sound, in Hz."""
        return self.config.sample_rate

    @cached_property
    def phonemizer(self) -> Phonemizer:
        """What makes phonemes of text: a program, started at first use. Raises UserError if there is none."""
        from ..phonemes.phonemizer import open_phonemizer

        config = self.config
        return open_phonemizer(config.phoneme_type, config.espeak_voice, config.vowel_clusters or None)

    def close(self) -> None:
        """End the program that makes the phonemes."""
        if "phonemizer" in self.__dict__:
            self.phonemizer.close()
            del self.phonemizer

    def __enter__(self) -> OnnxVoice:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def reseed(self, seed: int | None) -> None:
        """Start the noise anew: the same texts then sound as after any other start with this seed.

        Loads the model again, which is the only way: a second for quality medium.
        """
        self._session = open_session(self.path, self._device, self._threads, seed)
        check_inputs(self._session, self.config, self.path)
        check_fit(self._session, self.config, self.path)  # each time, as it draws from the noise too

    def check(self, manner: Manner) -> None:
        """Find what would keep it from speaking so, before a place for the sound is opened. Raises UserError."""
        speaker_id(self.config, manner.speaker, self.path)
        _ = self.phonemizer

    def scales(self, manner: Manner) -> tuple[float, float, float]:
        """noise_scale, length_scale and noise_w as the model takes them."""
        config = self.config
        return (
            config.noise_scale if manner.noise_scale is None else manner.noise_scale,
            config.length_scale if manner.length_scale is None else manner.length_scale,
            config.noise_w if manner.noise_w is None else manner.noise_w,
        )

    def speak(self, text: str, manner: Manner | None = None) -> Iterator[np.ndarray]:
        """Yield each sentence as it is made, float32 (samples,) within +-1, with its pause. Memory is a sentence's.

        Phonemes without an id are left out and counted in `missing`. Raises UserError.
        """
        manner = manner or Manner()
        speaker = speaker_id(self.config, manner.speaker, self.path)
        scales = self.scales(manner)
        silence = np.zeros(int(manner.sentence_silence_s * self.sample_rate), np.float32)
        spoken = False
        for piece in pieces_of(text):
            for sentence in self.phonemizer.sentences(piece):
                for number, part in enumerate(parts_of(sentence)):
                    if spoken and not number and len(silence):
                        yield silence
                    sound = self._say(part, scales, speaker, manner)
                    if sound is not None:
                        spoken = True
                        yield sound

    def _say(
        self, phonemes: Sequence[str], scales: tuple[float, float, float], speaker: int | None, manner: Manner
    ) -> np.ndarray | None:
        """The sound of phonemes; None if the voice knows none of them."""
        left_out = sum(self.missing.values())
        ids = ids_of_sentence(phonemes, self._table, self.missing)
        if sum(self.missing.values()) - left_out == len(phonemes):
            return None
        return levelled(run_session(self._session, ids, scales, speaker), manner.normalize, manner.volume)


def read_config(path: Path) -> VoiceConfig:
    """Read the config beside the voice at `path`. Raises UserError if one of them is not there, or is not a voice's."""
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "there is no such file"
        raise UserError(f"cannot read the voice {path}", why, "give the path of a .onnx file")
    beside = config_path(path)
    if not beside.is_file():
        raise UserError(
            f"the voice {path} has no config",
            f"expected it at {beside}",
            f"copy the config.json of the voice's training there, or download {beside.name} from where {path.name} is from",
        )
    return VoiceConfig.from_file(beside)


def _table_of(path: Path, config: VoiceConfig) -> PhonemeTable:
    """The voice's own phonemes with their ids. Raises UserError."""
    try:
        if not 4000 <= config.sample_rate <= 192_000:
            raise ValueError(f"audio.sample_rate is {config.sample_rate}; it may be 4000 to 192000 Hz")
        return table_of(config.phoneme_id_map, config.num_symbols)
    except ValueError as error:
        fix = "put the config.json of the voice's training there"
        raise UserError(f"{config_path(path)} is not the config of a Piper voice", str(error), fix) from None


def parts_of(sentence: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut a sentence of phonemes that is too long to be said at once: at pauses, else between words, else anywhere."""
    while len(sentence) > LONGEST_SENTENCE:
        head = sentence[:LONGEST_SENTENCE]
        spaces = [at for at, phoneme in enumerate(head) if phoneme == " " and at]
        pauses = [at for at in spaces if head[at - 1] in _PAUSES]
        at = (pauses or spaces or [LONGEST_SENTENCE])[-1]
        yield sentence[:at]
        sentence = sentence[at:]
        if sentence[0] == " ":
            sentence = sentence[1:]
    yield sentence
