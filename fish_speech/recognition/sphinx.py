"""Recognition by pocketsphinx: small, offline, English only, and often wrong."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..extras import require
from ..timeline import Piece
from .recognizer import SAMPLE_RATE
from .words import TimedWord, make_pieces

FRAME_S = 0.01  # of the decoder's times
_VARIANT = re.compile(r"\(\d+\)$")  # "the(2)" is "the" by its second pronunciation
_NO_WORD = ("<", "[", "+")  # <s>, </s>, <sil>, [NOISE], ++SMACK++


class PocketSphinx:
    """The decoder of CMU Sphinx with the US English model of its wheel. Weak but small: WER of clear speech is 0.2-0.3.

    About 0.2 s of work per second of sound, of 5 s as of 110 s at once. `language_model`: of the words to expect, in
    ARPA format, instead of general English.
    """

    def __init__(self, language_model: str | None = None) -> None:
        module = require("pocketsphinx", "--asr pocketsphinx")
        from importlib.metadata import version

        self.name = f"pocketsphinx {version('pocketsphinx')} en-us"
        options = {"samprate": SAMPLE_RATE, "cmn": "batch", "loglevel": "FATAL"}
        if language_model is None:
            self._decoder = module.Decoder(**options)
        else:
            self.name += f" {hashlib.sha256(language_model.encode()).hexdigest()[:16]}"
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "text.lm")
                path.write_text(language_model, encoding="utf-8", newline="\n")
                self._decoder = module.Decoder(lm=str(path), **options)

    def __call__(self, samples: np.ndarray) -> str:
        if not self._decode(samples):
            return ""
        heard = self._decoder.hyp()
        return heard.hypstr if heard is not None else ""

    def words(self, samples: np.ndarray, language: str | None = None) -> list[Piece]:
        """The words heard, none of which ends a sentence: the decoder knows no punctuation.

        Confidence is the word's posterior in the lattice. It means what it says: of the words of samples/allison that
        are given 0.9 and more, 95 % are right, and of those below 0.3, 56 %.
        """
        if language not in (None, "en"):
            raise UserError(
                f"pocketsphinx does not know the language {language!r}",
                "it brings an English model only",
                "use --asr whisper",
            )
        if not self._decode(samples):
            return []
        segments = self._decoder.seg() or []  # None if it heard nothing at all
        heard = [
            TimedWord(
                " " + _VARIANT.sub("", segment.word),
                segment.start_frame * FRAME_S,
                (segment.end_frame + 1) * FRAME_S,  # the end frame is the word's last
                segment.prob,
            )
            for segment in segments
            if not segment.word.startswith(_NO_WORD)
        ]
        return make_pieces([heard], len(samples) / SAMPLE_RATE)

    def detect_language(self, samples: np.ndarray) -> tuple[str, float]:
        """English: there is no other."""
        return "en", 1.0

    def _decode(self, samples: np.ndarray) -> bool:
        if not np.any(samples):  # it hears a word in digital silence
            return False
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        self._decoder.reinit_feat()  # else its estimate of the noise goes from one clip to the next
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        return True
