"""Build the corpus that minnow is trained on: synthetic voices reading sentences, and real voices for the codec.

Everything comes from Debian packages (docs/minnow.md names them and their licences):

    lm/VOICE/NNNNNN.wav + .lab      flite and espeak-ng reading sentences of tools/minnow_text.py
    lm_heldout/VOICE/...            the same voices reading sentences that are not in lm; texts.txt lists them
    codec/SET/*.wav                 recorded telephone prompts: en, es, fr, it, ru
    codec_heldout/SET/*.wav         prompts that are not in codec; allison (English) with transcripts as .lab
    corpus.json, PROGRESS.txt       what is there; what has happened so far

A second run skips what is there, so an interrupted or larger corpus continues where it stopped.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process per core: threads within would only be in the way
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import soundfile
import soxr

from fish_speech.audio import normalize_loudness, write_wav
from fish_speech.files import write_json, write_text
from tools.minnow_text import Sentences, make_sentences, words_of

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLE_RATE = 16000  # Hz
EDGE_S = 0.1  # silence left before and after the speech
FRAME_S = 0.01  # of the level measurement that finds the edges
SILENCE_DB = -45.0  # below the loudest frame: silence
TARGET_LUFS = -23.0
MIN_CLIP_S = 0.6
DECODE_BATCH = 32  # prompts for one ffmpeg
HELDOUT_PROMPTS = 10  # of each set other than Allison's
OTHER_VOICES_HELDOUT = 15
FIRST_PER_VOICE = 400  # of every voice before the rest, so that a codec can start to train
SHARED_EVERY = 10  # every tenth sentence of a voice is one that the other voices read too
COPY_CORRELATION = 0.6  # a prompt that correlates this much with a held-out one holds the same recording

DEFAULT_VOICES = "slt=24000,rms=6000,awb=4000,kal16=4000,espeak=4000"
# Where in the list of sentences each voice starts; the shares follow DEFAULT_VOICES.
VOICE_START = {"slt": 0.0, "rms": 0.57, "awb": 0.71, "kal16": 0.81, "kal": 0.81, "espeak": 0.9}
SOUNDS = Path("/usr/share/asterisk/sounds")
DOCS = Path("/usr/share/doc")
WORDNET = Path("/usr/share/wordnet")
SETS = ("es", "fr", "it", "ru", "en")
HELDOUT_ALLISON = REPOSITORY / "tools" / "minnow_heldout_allison.txt"
NOT_SPEECH = re.compile(r"(?:^silence/|beep|tone$|monkeys$|music|^confbridge-(?:join|leave)$)")
LICENSES = {
    "sentences": "WordNet 3.0 licence (usage examples); the project's own grammar",
    "slt, rms, awb, kal16, kal": "flite and its CMU voices: BSD-like, output free",
    "espeak": "espeak-ng: GPL-3+, which does not cover its output",
    "en, es, allison": "CC-BY-SA 3.0, (c) 2003-2010 Allison Smith, financed by Digium, Inc.",
    "fr": "CC-BY-SA 3.0, (c) 2006-2008 June Wallack",
    "it": "CC-BY 3.0, (c) 2012 Carlo Flora, http://www.segreterietelefoniche.it",
    "ru": "CC-BY 3.0, (c) 2010 Maxim Topal, http://www.ivrvoice.ru",
}

Job = TypeVar("Job")


class CorpusError(Exception):
    """What the user can mend: one line that says what is missing and how to get it."""


@dataclass(frozen=True)
class Reading:
    """One sentence that one voice is to read into one file."""

    voice: str
    text: str
    path: Path


@dataclass(frozen=True)
class Prompt:
    """One recorded prompt, named as its set names it: "followme/sorry"."""

    source: Path
    path: Path
    text: str | None = None


def require(programs: Iterable[str], folders: Iterable[tuple[Path, str]]) -> None:
    """Raise CorpusError naming the Debian packages to install, if a program or folder is missing."""
    missing = [name for name in programs if shutil.which(name) is None]
    missing += [package for folder, package in folders if not folder.is_dir()]
    if missing:
        raise CorpusError(f"missing: {', '.join(missing)}; install with: sudo apt-get install {' '.join(missing)}")


def parse_voices(text: str) -> dict[str, int]:
    """Read "slt=24000,rms=6000" as how many sentences each voice reads."""
    voices: dict[str, int] = {}
    for part in text.split(","):
        name, _, count = part.partition("=")
        if name not in VOICE_START or not count.isdigit():
            raise argparse.ArgumentTypeError(f"{part!r} is not VOICE=COUNT with a voice of {', '.join(VOICE_START)}")
        voices[name] = int(count)
    return voices


def trim(waveform: np.ndarray, sample_rate: int, pad: bool) -> np.ndarray:
    """Cut (samples,) to its speech with EDGE_S of what surrounds it; with `pad`, zeros make up where there is less."""
    frame = round(FRAME_S * sample_rate)
    count = len(waveform) // frame
    if count == 0:
        return waveform[:0]
    power = np.mean(waveform[: count * frame].reshape(count, frame).astype(np.float64) ** 2, axis=1)
    loud = np.flatnonzero(power > max(power.max(), 1e-8) * 10 ** (SILENCE_DB / 10))
    if len(loud) == 0:
        return waveform[:0]
    edge = round(EDGE_S * sample_rate)
    start, stop = loud[0] * frame - edge, (loud[-1] + 1) * frame + edge
    cut = waveform[max(start, 0) : stop]
    return np.pad(cut, (max(-start, 0), max(stop - len(waveform), 0))) if pad else cut


def _finish(waveform: np.ndarray, sample_rate: int, pad: bool) -> np.ndarray:
    """Bring what was spoken to the corpus's rate, edges and loudness."""
    if sample_rate != SAMPLE_RATE:
        waveform = soxr.resample(waveform, sample_rate, SAMPLE_RATE)
    return normalize_loudness(trim(waveform, SAMPLE_RATE, pad), SAMPLE_RATE, TARGET_LUFS)[0]


def _run(command: list[str]) -> None:
    """Run a program; raise CorpusError with its last line, if it fails."""
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode:
        reason = result.stderr.decode("utf-8", "replace").strip().splitlines() or [f"status {result.returncode}"]
        raise CorpusError(f"{command[0]} failed: {reason[-1]}")


def synthesize(voice: str, text: str) -> np.ndarray:
    """Let a synthetic voice read a text: float32 (samples,) at SAMPLE_RATE."""
    with tempfile.TemporaryDirectory(prefix="minnow-") as folder:
        path = str(Path(folder) / "spoken.wav")
        if voice == "espeak":
            command = ["espeak-ng", "-v", "en-us", "-w", path, text]
        else:
            command = ["flite", "-voice", voice, "-t", text, "-o", path]
        _run(command)
        waveform, sample_rate = soundfile.read(path, dtype="float32")
    return _finish(waveform, sample_rate, pad=True)


def _read_aloud(reading: Reading) -> None:
    """Make one reading's WAV and then its .lab, so that a .lab stands for a whole pair."""
    write_wav(reading.path, synthesize(reading.voice, reading.text), SAMPLE_RATE)
    write_text(reading.path.with_suffix(".lab"), reading.text)


def _is_done(reading: Reading) -> bool:
    lab = reading.path.with_suffix(".lab")
    return lab.exists() and reading.path.exists() and lab.read_text("utf-8") == reading.text


def decode_prompts(sources: list[Path]) -> Iterator[np.ndarray]:
    """Decode G.722 prompts, as float32 (samples,) at SAMPLE_RATE each; one ffmpeg for many, as it starts slowly."""
    for start in range(0, len(sources), DECODE_BATCH):
        batch = sources[start : start + DECODE_BATCH]
        with tempfile.TemporaryDirectory(prefix="minnow-") as folder:
            paths = [str(Path(folder) / f"{i}.wav") for i in range(len(batch))]
            inputs = [part for source in batch for part in ("-f", "g722", "-i", str(source))]
            outputs = [part for i, path in enumerate(paths) for part in ("-map", str(i), "-ac", "1", path)]
            _run(["ffmpeg", "-nostdin", "-v", "error", *inputs, *outputs])
            for path in paths:
                yield soundfile.read(path, dtype="float32")[0]


def _convert_prompts(prompts: list[Prompt]) -> None:
    """Write the WAV of each prompt that holds enough speech, and its .lab, if it has a transcript."""
    for prompt, decoded in zip(prompts, decode_prompts([prompt.source for prompt in prompts])):
        waveform = trim(decoded, SAMPLE_RATE, pad=False)
        if len(waveform) < MIN_CLIP_S * SAMPLE_RATE:
            continue
        if prompt.text:
            write_text(prompt.path.with_suffix(".lab"), prompt.text)
        write_wav(prompt.path, normalize_loudness(waveform, SAMPLE_RATE, TARGET_LUFS)[0], SAMPLE_RATE)


def prompt_texts() -> dict[str, str]:
    """Transcripts of the English prompts by name; those in [brackets] describe a sound."""
    with gzip.open(DOCS / "asterisk-core-sounds-en" / "core-sounds-en.txt.gz", "rt", encoding="utf-8") as file:
        pairs = (line.strip().partition(": ") for line in file if not line.startswith(";"))
        return {name: " ".join(text.split()) for name, _, text in pairs if text}


def shared_texts(folder: Path) -> dict[str, str]:
    """Transcripts beside clips, by clip name."""
    return {path.stem: path.read_text("utf-8").strip() for path in sorted(folder.glob("*.txt"))}


def _prompt_files(name: str) -> dict[str, Path]:
    """The files of one set by prompt name."""
    folder = (SOUNDS / name).resolve()
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.g722"))}


def heldout_allison(path: Path = HELDOUT_ALLISON) -> list[str]:
    """The clip names of the list file; "#" starts a comment."""
    names = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [name for name in names if name]


def find_copies(clips: dict[str, np.ndarray], heldout: dict[str, np.ndarray]) -> dict[str, tuple[str, float]]:
    """Name the clips that hold the recording of a held-out one, anywhere within: {clip: (held-out clip, correlation)}.

    Both are (samples,) at SAMPLE_RATE. Normalised cross-correlation below 1 kHz: 1 is the same recording, other
    readings of the same words stay far below.
    """
    low = SAMPLE_RATE // 8
    small = {name: soxr.resample(wave, SAMPLE_RATE, low).astype(np.float64) for name, wave in clips.items()}
    keys = {name: soxr.resample(wave, SAMPLE_RATE, low).astype(np.float64) for name, wave in heldout.items()}
    longest_key = max(map(len, keys.values()), default=0)
    copies: dict[str, tuple[str, float]] = {}
    key_spectra: dict[tuple[str, int], np.ndarray] = {}
    for name, wave in small.items():
        size = 1 << (len(wave) + 2 * longest_key - 1).bit_length()
        padded = np.pad(wave, (longest_key, longest_key))
        energy = np.concatenate([[0.0], np.cumsum(padded**2)])
        spectrum = np.fft.rfft(padded, size)
        for key_name, key in keys.items():
            if len(key) > 1.05 * len(wave):
                continue
            if (key_name, size) not in key_spectra:
                key_spectra[key_name, size] = np.conj(np.fft.rfft(key, size))
            products = np.fft.irfft(spectrum * key_spectra[key_name, size], size)[: len(padded) - len(key) + 1]
            local = energy[len(key) :] - energy[: len(energy) - len(key)]
            floor = 0.1 * float(np.sum(key**2))  # a stretch far quieter than the key says nothing
            correlation = float(np.max(products / np.sqrt(np.sum(key**2) * np.maximum(local, floor))))
            if correlation > max(COPY_CORRELATION, copies.get(name, ("", 0.0))[1]):
                copies[name] = (key_name, round(correlation, 3))
    return copies


def _plan_english(output: Path, speech: dict[str, Path], texts: dict[str, str]) -> tuple[list[Prompt], dict[str, str]]:
    """Plan the English set without what is held out; also return what was excluded and why."""
    names = {name.replace("/", "_"): name for name in speech}
    lost = [clip for clip in heldout_allison() if names.get(clip) not in texts]
    if lost:
        raise CorpusError(f"the English prompts lack {', '.join(lost)}: install asterisk-core-sounds-en-g722 1.6.1")
    held = {clip: names[clip] for clip in heldout_allison()}
    jobs = [
        Prompt(speech[name], output / f"codec_heldout/allison/{clip}.wav", texts[name]) for clip, name in held.items()
    ]
    held_words = {" ".join(words_of(texts[name])): clip for clip, name in held.items()}
    rest = {name: path for name, path in speech.items() if name not in held.values()}
    waves = dict(zip(rest, decode_prompts(list(rest.values()))))
    held_waves = dict(zip(held, decode_prompts([speech[name] for name in held.values()])))
    found = find_copies(waves, held_waves)
    reasons = {name: f"holds the recording {clip} (correlation {value})" for name, (clip, value) in found.items()}
    for name in rest:
        words = " ".join(words_of(texts.get(name, "")))
        for key, clip in held_words.items():
            if f" {key} " in f" {words} ":
                reasons.setdefault(name, f"holds the words of {clip}")
    jobs += [
        Prompt(path, output / f"codec/en/{name.replace('/', '_')}.wav")
        for name, path in rest.items()
        if name not in reasons
    ]
    return jobs, {**dict.fromkeys(held.values(), "held out"), **reasons}


def plan_prompts(output: Path, seed: int, texts: dict[str, str]) -> tuple[list[Prompt], dict[str, str]]:
    """List the recorded prompts and where they go; also what the English set leaves out and why."""
    jobs: list[Prompt] = []
    excluded: dict[str, str] = {}
    for language in SETS:
        speech = {
            name: path
            for name, path in _prompt_files(language).items()
            if not NOT_SPEECH.search(name) and not texts.get(name, "").startswith("[")
        }
        if language == "en":
            english, excluded = _plan_english(output, speech, texts)
            jobs += english
            continue
        # G.722 is 8000 bytes/s: by size alone, hold out whole phrases of 2 to 8 s.
        phrases = [name for name, path in speech.items() if 16_000 < path.stat().st_size < 64_000]
        held = set(random.Random(f"{seed}-{language}").sample(phrases, HELDOUT_PROMPTS))
        for name, path in speech.items():
            folder = "codec_heldout" if name in held else "codec"
            jobs.append(Prompt(path, output / folder / language / f"{name.replace('/', '_')}.wav"))
    return jobs, excluded


def sentences_for(voice: str, count: int, sentences: list[str]) -> list[str]:
    """The sentences that a voice reads: its own stretch of the list, and some from the head of the list for all voices.

    A larger count only adds at the end, so a corpus can grow.
    """
    start = round(VOICE_START[voice] * len(sentences))
    if start == 0:
        return sentences[:count]
    shared = [index // SHARED_EVERY if index % SHARED_EVERY == 0 else None for index in range(count)]
    return [sentences[(start + i) % len(sentences) if head is None else head] for i, head in enumerate(shared)]


def plan_readings(output: Path, voices: dict[str, int], sentences: Sentences) -> list[Reading]:
    """All readings in the order to make them: held-out ones, a start of each voice, then all voices side by side."""
    held: list[Reading] = []
    staged: list[tuple[float, Reading]] = []
    for voice, count in voices.items():
        texts = sentences.heldout if voice == "slt" else sentences.heldout[:OTHER_VOICES_HELDOUT]
        held += [Reading(voice, text, output / f"lm_heldout/{voice}/{i:06d}.wav") for i, text in enumerate(texts)]
        for i, text in enumerate(sentences_for(voice, min(count, len(sentences.train)), sentences.train)):
            stage = -1.0 if i < FIRST_PER_VOICE else i / count
            staged.append((stage, Reading(voice, text, output / f"lm/{voice}/{i:06d}.wav")))
    return held + [reading for _, reading in sorted(staged, key=lambda pair: pair[0])]


class Progress:
    """Lines with the time, on the terminal and in PROGRESS.txt."""

    def __init__(self, output: Path) -> None:
        self.path = output / "PROGRESS.txt"

    def say(self, line: str) -> None:
        """Add one line."""
        line = f"{time.strftime('%H:%M:%S')} {line}"
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def run(self, name: str, work: Callable[[Job], None], jobs: list[Job], workers: int) -> None:
        """Do the jobs on several processes and report every half minute."""
        start = told = time.monotonic()
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            for done, _ in enumerate(pool.imap_unordered(work, jobs, chunksize=1), 1):
                now = time.monotonic()
                if now - told > 30 or done == len(jobs):
                    told = now
                    self.say(f"{name}: {done} of {len(jobs)}, {done / (now - start):.1f}/s")


def _version(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    text = result.stdout + result.stderr
    found = re.search(r"version:? (\S+)|text-to-speech: (\S+)", text)
    return next(filter(None, found.groups())) if found else "unknown"


def _counts(output: Path) -> Iterator[tuple[str, dict[str, float]]]:
    for folder in sorted(path for path in output.glob("*/*") if path.is_dir()):
        seconds = [soundfile.info(str(path)).duration for path in folder.glob("*.wav")]
        yield folder.relative_to(output).as_posix(), {"clips": len(seconds), "seconds": round(sum(seconds), 1)}


def write_manifest(output: Path, arguments: argparse.Namespace, sentences: Sentences, excluded: dict[str, str]) -> None:
    """Write corpus.json: what is there, and from what it was made."""
    manifest = {
        "sample_rate": SAMPLE_RATE,
        "seed": arguments.seed,
        "voices": arguments.per_voice,
        "sets": dict(_counts(output)),
        "sentences": {
            "train": len(sentences.train),
            "from_wordnet": len(sentences.from_wordnet),
            "distinct_words": sentences.distinct_words(),
            "heldout": len(sentences.heldout),
        },
        "left_out_of_codec_en": excluded,
        "versions": {
            "flite": _version("flite", "--version"),
            "espeak-ng": _version("espeak-ng", "--version"),
            "ffmpeg": _version("ffmpeg", "-version"),
            "packages": _package_versions(),
        },
        "licenses": LICENSES,
    }
    write_json(output / "corpus.json", manifest)


def _package_versions() -> dict[str, str]:
    packages = ["wordnet-base", "flite", "espeak-ng", *(f"asterisk-core-sounds-{name}-g722" for name in SETS)]
    if shutil.which("dpkg-query") is None:
        return {}
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return dict(line.split(" ", 1) for line in lines)


def build(arguments: argparse.Namespace) -> None:
    """Make the corpus: recorded prompts first, then the readings."""
    output: Path = arguments.output
    programs = {"espeak-ng" if voice == "espeak" else "flite" for voice in arguments.per_voice}
    sounds = [(SOUNDS / name, f"asterisk-core-sounds-{name}-g722") for name in SETS]
    english = DOCS / "asterisk-core-sounds-en"  # the transcripts; container images often leave documentation out
    require(sorted({"ffmpeg"} | programs), [*sounds, (english, english.name), (WORDNET, "wordnet-base")])
    output.mkdir(parents=True, exist_ok=True)
    progress = Progress(output)
    texts = prompt_texts()
    prompts, excluded = plan_prompts(output, arguments.seed, texts)
    for folder in {prompt.path.parent for prompt in prompts}:
        folder.mkdir(parents=True, exist_ok=True)
    # A prompt without enough speech leaves nothing behind and is looked at again: that takes seconds.
    todo_prompts = [prompt for prompt in prompts if not prompt.path.exists()]
    batches = [todo_prompts[i : i + DECODE_BATCH] for i in range(0, len(todo_prompts), DECODE_BATCH)]
    progress.run(f"codec, batches of {DECODE_BATCH} prompts", _convert_prompts, batches, arguments.workers)
    unspeakable = [*texts.values(), *(shared_texts(arguments.shared).values() if arguments.shared else ())]
    sentences = make_sentences(WORDNET, arguments.seed, arguments.heldout, unspeakable)
    progress.say(f"sentences: {len(sentences.train)} with {sentences.distinct_words()} distinct words")
    readings = plan_readings(output, arguments.per_voice, sentences)
    for folder in {reading.path.parent for reading in readings}:
        folder.mkdir(parents=True, exist_ok=True)
    write_text(output / "lm_heldout" / "texts.txt", "\n".join(sentences.heldout) + "\n")
    todo = [reading for reading in readings if not _is_done(reading)]
    early = len(sentences.heldout) * len(arguments.per_voice) + FIRST_PER_VOICE * len(arguments.per_voice)
    progress.run("lm, a start of each voice", _read_aloud, todo[:early], arguments.workers)
    write_manifest(output, arguments, sentences, excluded)
    progress.run("lm", _read_aloud, todo[early:], arguments.workers)
    write_manifest(output, arguments, sentences, excluded)
    progress.say("done")


def main(argv: list[str] | None = None) -> int:
    """Read the command line and build; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the corpus")
    parser.add_argument(
        "--shared", type=Path, help="folder of clips with .txt transcripts whose texts nobody is to read"
    )
    parser.add_argument(
        "--per-voice", type=parse_voices, default=parse_voices(DEFAULT_VOICES), help=f"default: {DEFAULT_VOICES}"
    )
    parser.add_argument("--heldout", type=int, default=50, help="sentences that nobody trains on (default: 50)")
    parser.add_argument("--seed", type=int, default=7, help="of the sentences and what is held out (default: 7)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    arguments = parser.parse_args(argv)
    try:
        build(arguments)
    except (CorpusError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
