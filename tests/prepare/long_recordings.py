"""Long recordings with a known answer: clips joined with known gaps, so that every word's clip is known.

Each clip loses its own silence at both ends; between two clips lies faint noise of a known length. `hear` writes down
what pocketsphinx hears, with times. tests/golden/prepare/allison-heard.json is what it heard in
`long_recording(samples/allison)`; `python -m tests.prepare.long_recordings` makes that file again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fish_speech.audio import read_audio
from fish_speech.timeline import Piece, Span

REPO = Path(__file__).parents[2]
SAMPLES = REPO / "samples" / "allison"
HEARD = REPO / "tests" / "golden" / "prepare" / "allison-heard.json"
SAMPLE_RATE = 16000  # Hz
_FRAME_S = 0.01


class SpokenClip(NamedTuple):
    """A clip in the long recording: what is said from where to where."""

    name: str
    text: str
    start_s: float
    end_s: float


class LongRecording(NamedTuple):
    """float32 (samples,), and what was put where."""

    samples: np.ndarray
    sample_rate: int  # Hz
    clips: list[SpokenClip]

    @property
    def text(self) -> str:
        """All that is said, one clip a line."""
        return "\n".join(clip.text for clip in self.clips)

    @property
    def speech(self) -> list[Span]:
        """Where the clips are; pauses inside a clip count as speech."""
        return [Span(clip.start_s, clip.end_s) for clip in self.clips]

    @property
    def cuts(self) -> list[float]:
        """The middle of each gap, seconds."""
        return [(a.end_s + b.start_s) / 2 for a, b in zip(self.clips, self.clips[1:])]


def trim(samples: np.ndarray, sample_rate: int, below_peak_db: float = 45.0) -> np.ndarray:
    """Cut both ends of (samples,) back to the first and the last frame within `below_peak_db` of the loudest."""
    size = round(_FRAME_S * sample_rate)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    energy = np.square(frames, dtype=np.float64).mean(axis=1)
    loud = np.flatnonzero(energy > energy.max() * 10 ** (-below_peak_db / 10))
    return samples[loud[0] * size : (loud[-1] + 1) * size]


def long_recording(
    folder: Path = SAMPLES,
    seed: int = 0,
    gap_s: tuple[float, float] = (0.25, 1.2),
    noise_db: float = -65.0,
    limit: int | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> LongRecording:
    """Join the .flac clips of `folder` that have a .txt, sorted by name, with gaps drawn evenly from `gap_s` seconds.

    The recording also begins and ends with a gap. `noise_db` is the level of the noise in the gaps, dB of full scale.
    """
    rng = np.random.default_rng(seed)

    def gap() -> np.ndarray:
        count = round(rng.uniform(*gap_s) * sample_rate)
        return (rng.standard_normal(count) * 10 ** (noise_db / 20)).astype(np.float32)

    parts, clips, at = [gap()], [], 0
    for path in [p for p in sorted(folder.glob("*.flac")) if p.with_suffix(".txt").is_file()][:limit]:
        spoken = trim(read_audio(path, sample_rate)[0], sample_rate)
        at = sum(map(len, parts))
        text = " ".join(path.with_suffix(".txt").read_text(encoding="utf-8").split())
        clips.append(SpokenClip(path.stem, text, at / sample_rate, (at + len(spoken)) / sample_rate))
        parts += [spoken, gap()]
    return LongRecording(np.concatenate(parts), sample_rate, clips)


def words_by_clip(recording: LongRecording) -> list[int]:
    """The number of the clip that speaks each written word."""
    return [number for number, clip in enumerate(recording.clips) for _ in clip.text.split()]


def share_in_right_clip(recording: LongRecording, pieces: Sequence[Piece]) -> float:
    """Share of words whose middle lies in the clip that speaks them, cut in the middle of the gaps."""
    found = np.searchsorted(recording.cuts, [(piece.start_s + piece.end_s) / 2 for piece in pieces])
    return float((found == words_by_clip(recording)).mean())


def hear(recording: LongRecording, speech: Sequence[Span], **options: object) -> list[Piece]:
    """What pocketsphinx hears in each span of `speech`, word by word. `options` go to its decoder."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=SAMPLE_RATE, cmn="batch", loglevel="FATAL", **options)
    assert recording.sample_rate == SAMPLE_RATE
    pcm = (np.clip(recording.samples, -1, 1) * 32767).astype("<i2")
    heard: list[Piece] = []
    for span in speech:
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(
            pcm[round(span.start_s * SAMPLE_RATE) : round(span.end_s * SAMPLE_RATE)].tobytes(), full_utt=True
        )
        decoder.end_utt()
        for part in decoder.seg() or ():
            word = part.word.split("(")[0]
            if word and word[0] not in "<[+":
                start_s, end_s = part.start_frame / 100, (part.end_frame + 1) / 100
                heard.append(Piece(word, round(span.start_s + start_s, 2), round(span.start_s + end_s, 2), 0.5))
    return heard


def find_speech(recording: LongRecording) -> list[Span]:
    """Speech as silero-vad finds it: it does not know the gaps. Stretches are joined over pauses under 0.2 s."""
    import torch
    from silero_vad import get_speech_timestamps, load_silero_vad

    found = get_speech_timestamps(
        torch.from_numpy(recording.samples),
        load_silero_vad(onnx=False),
        sampling_rate=SAMPLE_RATE,
        min_silence_duration_ms=200,
        speech_pad_ms=60,
    )
    return [Span(round(part["start"] / SAMPLE_RATE, 3), round(part["end"] / SAMPLE_RATE, 3)) for part in found]


def stored_hearing() -> tuple[list[Piece], list[Span]]:
    """What pocketsphinx heard in `long_recording()`, and where silero-vad found speech: real output, stored."""
    stored = json.loads(HEARD.read_text(encoding="utf-8"))
    return [Piece(*word, 0.5) for word in stored["heard"]], [Span(*span) for span in stored["speech"]]


def _store() -> None:
    recording = long_recording()
    speech = find_speech(recording)
    heard = hear(recording, speech)
    HEARD.parent.mkdir(parents=True, exist_ok=True)
    made = "python -m tests.prepare.long_recordings: silero-vad's speech, pocketsphinx 5 en-us on each span; seconds"
    lines = ",\n".join(json.dumps([word.text, word.start_s, word.end_s]) for word in heard)
    spans = ",\n".join(json.dumps(list(span)) for span in speech)
    HEARD.write_text(
        f'{{"made_by": {json.dumps(made)},\n"speech": [\n{spans}\n],\n"heard": [\n{lines}\n]}}\n', encoding="utf-8"
    )


if __name__ == "__main__":
    _store()
