"""What is wrong with a data set: problems of single clips with a badness score, and findings in plain words.

A problem has a severity: 1 where the limit is just passed, more the further a clip is beyond it, never over 5. A clip's
badness is the sum over its problems. It orders the clips a person should listen to first, and decides nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

Row = Mapping[str, Any]  # a line of manifest.jsonl; any field may be missing or None

CLIPPED_SHARE = 1e-4  # of all samples
SNR_DB = 15.0
BANDWIDTH_HZ = 8000.0
RATE_FACTOR = 1.6  # times faster or slower than the speaker's median
CONFIDENCE = 0.6
DNSMOS = 2.5  # of 1-5
LOUDNESS_DB = 3.0  # from the target, or from the set's median where there is no target
SHORTEST_S, LONGEST_S = 1.0, 30.0
_ENOUGH_CLIPS = 5  # for a median that one odd clip does not carry along
_WORST = 5.0
_FEW_MINUTES = 10.0
_UNBALANCED = 4.0  # times as much speech as another speaker
_MUCH_LEFT_OUT = 0.2  # of the input's seconds
_NO_MEASURE = 1e12  # no figure of a clip is that large


class Problem(NamedTuple):
    """One reason why a clip may harm the voice."""

    kind: str  # a key of KINDS
    reason: str  # with the clip's figure
    severity: float  # 1-5


class Finding(NamedTuple):
    """One thing to know about the set."""

    title: str
    advice: str  # what it means and what to do about it


@dataclass(frozen=True)
class Kind:
    """A problem that clips can have."""

    title: str
    advice: str


_LISTEN = "Listen, then correct the clip's .lab or delete the clip."
KINDS = {
    "clipped": Kind(
        "clipped",
        "More than 1 sample in 10,000 lies in a flat top: the recording was too loud, and what was cut off cannot be "
        "brought back. Record these again at a lower level, or delete the clips.",
    ),
    "noisy": Kind(
        f"SNR below {SNR_DB:g} dB",
        "Noise and room are learned together with the voice. Record closer to the microphone in a quieter room, or "
        "delete the clips.",
    ),
    "narrow": Kind(
        f"bandwidth of {BANDWIDTH_HZ / 1000:g} kHz or less",
        "They were recorded or compressed at a lower rate, whatever rate the file has now, and they teach a dull voice. "
        "Look for the original recordings, or delete the clips if the others are enough.",
    ),
    "rate": Kind(
        "unusual speaking rate",
        f"More than {RATE_FACTOR:g} times faster or slower than the speaker's median: often the text is not what is "
        f"spoken. {_LISTEN}",
    ),
    "unsure": Kind(
        f"confidence below {CONFIDENCE:g}",
        f"The recogniser, or the alignment with your text, was not sure of these words. {_LISTEN}",
    ),
    "other_voice": Kind(
        "voice unlike the speaker's other clips",
        "Another person, music, or noise may be in them. Listen; delete them, or prepare those again with --speaker.",
    ),
    "duplicate": Kind(
        "the same as another clip", "A sentence that is there twice counts twice. Delete one of the two."
    ),
    "poor": Kind(
        f"DNSMOS below {DNSMOS:g}",
        "By a model of listeners' marks they sound poor: noise, echo or compression. Listen, and delete what you hear it in.",
    ),
    "loudness": Kind(
        f"loudness off by more than {LOUDNESS_DB:g} dB",
        "Single loud peaks kept them from being raised, or they were not normalized. Prepare with --normalize; if they "
        "were, look for knocks and pops in the recording.",
    ),
    "short": Kind(f"shorter than {SHORTEST_S:g} s", "Too short to learn a sentence's melody; fine in small numbers."),
    "long": Kind(f"longer than {LONGEST_S:g} s", "Training may leave them out. Prepare with --split-long."),
    "no_text": Kind("without text", "There is nothing to learn from them. Add the text, or delete the clips."),
}


def figure(row: Row, key: str) -> float | None:
    """A row's finite number, or None; `dnsmos` is its overall mark."""
    value = row.get(key)
    if key == "dnsmos" and isinstance(value, Mapping):
        value = value.get("overall")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if abs(value) < _NO_MEASURE else None  # not if it is NaN


def speaker_of(row: Row) -> str:
    """The speaker's name; empty if there is none."""
    return str(row.get("speaker") or "")


def seconds_of(row: Row) -> float | None:
    """How much of the source a row stands for, in seconds; None if that is unknown."""
    start, end = figure(row, "start_s"), figure(row, "end_s")
    if start is not None and end is not None and end >= start:
        return end - start
    return figure(row, "duration_s")


class Judge:
    """Finds the problems of clips, against fixed limits and against what is usual in their own set."""

    def __init__(self, kept: Sequence[Row], target_lufs: float | None = None):
        rates: dict[str, list[float]] = defaultdict(list)
        for row in kept:
            rate = figure(row, "characters_per_s")
            if rate is not None and rate > 0:
                rates[speaker_of(row)].append(rate)
        everyone = [rate for own in rates.values() for rate in own]
        self._usual_rate = median(everyone) if len(everyone) >= _ENOUGH_CLIPS else None
        self._usual_rates = {name: median(own) for name, own in rates.items() if len(own) >= _ENOUGH_CLIPS}
        levels = [level for row in kept if (level := figure(row, "lufs")) is not None]
        self._lufs = (
            target_lufs if target_lufs is not None else median(levels) if len(levels) >= _ENOUGH_CLIPS else None
        )

    def problems(self, row: Row) -> list[Problem]:
        """The problems of a kept clip, the most severe first."""
        found: list[Problem] = []

        def add(kind: str, reason: str, severity: float) -> None:
            found.append(Problem(kind, reason, min(max(severity, 1.0), _WORST)))

        if not str(row.get("text") or "").strip():
            add("no_text", "no text", 4)
        if (share := figure(row, "clipped_share")) is not None and share > CLIPPED_SHARE:
            add("clipped", f"{100 * share:.2g} % of samples clipped", 1 + math.log10(share / CLIPPED_SHARE))
        if (snr := figure(row, "snr_db")) is not None and snr < SNR_DB:
            add("noisy", f"SNR {snr:.1f} dB", 1 + (SNR_DB - snr) / 5)
        if (bandwidth := figure(row, "bandwidth_hz")) is not None and bandwidth <= BANDWIDTH_HZ:
            add("narrow", f"bandwidth {bandwidth / 1000:.1f} kHz", 1 + (BANDWIDTH_HZ - bandwidth) / 2000)
        rate, usual = figure(row, "characters_per_s"), self._usual_rates.get(speaker_of(row), self._usual_rate)
        if rate is not None and usual is not None:
            times = max(rate, 1e-3) / usual
            if not 1 / RATE_FACTOR <= times <= RATE_FACTOR:
                words = f"{times:.1f} times as fast" if times > 1 else f"{1 / times:.1f} times as slow"
                add("rate", f"{rate:.1f} characters/s, {words} as usual", abs(math.log(times)) / math.log(RATE_FACTOR))
        if (confidence := figure(row, "confidence")) is not None and confidence < CONFIDENCE:
            add("unsure", f"confidence {confidence:.2f}", 1 + (CONFIDENCE - confidence) / 0.15)
        if row.get("speaker_outlier") is True:
            similarity = figure(row, "speaker_similarity")
            shown = "" if similarity is None else f" (similarity {similarity:.2f})"
            add("other_voice", f"voice unlike the others{shown}", 4)
        if row.get("duplicate_of"):
            add("duplicate", f"the same as {str(row['duplicate_of'])[:120]}", 2)
        if (mark := figure(row, "dnsmos")) is not None and mark < DNSMOS:
            add("poor", f"DNSMOS {mark:.2f}", 1 + (DNSMOS - mark) / 0.5)
        if (
            (lufs := figure(row, "lufs")) is not None
            and self._lufs is not None
            and abs(lufs - self._lufs) > LOUDNESS_DB
        ):
            off = lufs - self._lufs
            add("loudness", f"{abs(off):.1f} dB too {'loud' if off > 0 else 'quiet'}", abs(off) / LOUDNESS_DB)
        if (seconds := figure(row, "duration_s")) is not None:
            if seconds < SHORTEST_S:
                add("short", f"{seconds:.2f} s long", 1)
            elif seconds > LONGEST_S + 0.05:
                add("long", f"{seconds:.1f} s long", 1)
        return sorted(found, key=lambda problem: -problem.severity)


def badness(problems: Sequence[Problem]) -> float:
    """The sum of severities: 0 for a clip without a problem."""
    return sum(problem.severity for problem in problems)


def find(kept: Sequence[Row], problems: Sequence[Sequence[Problem]], left_out_s: dict[str, float]) -> list[Finding]:
    """What to know about the set, the weightiest first; `problems` are those of each kept clip.

    `left_out_s` holds the seconds left out by category.
    """
    found = [*_about_the_set(kept, left_out_s)]
    weights: dict[str, list[float]] = defaultdict(list)
    for own in problems:
        for problem in own:
            weights[problem.kind].append(problem.severity)
    for kind, severities in sorted(weights.items(), key=lambda item: (-sum(item[1]), item[0])):
        count = f"{len(severities):,} of {len(kept):,} {plural('clip', len(kept))}"
        found.append(Finding(f"{count}: {KINDS[kind].title}", KINDS[kind].advice))
    return found


def _about_the_set(kept: Sequence[Row], left_out_s: dict[str, float]) -> list[Finding]:
    found = []
    seconds: dict[str, float] = defaultdict(float)
    for row in kept:
        seconds[speaker_of(row)] += figure(row, "duration_s") or 0.0
    few = {name: own / 60 for name, own in seconds.items() if own / 60 < _FEW_MINUTES}
    advice = "The fewer sentences, the less of the voice's range is learned. Record more if you can."
    if not kept:
        found.append(Finding("No clip was kept", "Below is the reason for every segment that was left out."))
    elif few and len(seconds) == 1:
        found.append(Finding(f"Less than {_FEW_MINUTES:g} minutes of speech: {sum(few.values()):.1f} min", advice))
    elif few:
        shown = sorted(few.items(), key=lambda item: item[1])
        names = ", ".join(f"{_isolated(name)} {minutes:.1f} min" for name, minutes in shown[:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        found.append(Finding(f"Speakers with less than {_FEW_MINUTES:g} minutes of speech: {names}{more}", advice))
    if len(seconds) > 1:
        most, least = max(seconds, key=lambda name: seconds[name]), min(seconds, key=lambda name: seconds[name])
        if seconds[most] > _UNBALANCED * seconds[least]:
            amounts = ", ".join(f"{_isolated(name)} {seconds[name] / 60:.1f} min" for name in (most, least))
            advice = (
                "The voice with little speech may drift towards the other. Add recordings of it, or train it by itself."
            )
            found.append(Finding(f"Speakers are unbalanced: {amounts}", advice))
    lost = math.fsum(left_out_s.values())
    total = lost + math.fsum(own for row in kept if (own := seconds_of(row)) is not None)
    if kept and total > 0 and lost / total > _MUCH_LEFT_OUT:
        reason = max(left_out_s, key=lambda name: left_out_s[name])
        title = f"{100 * lost / total:.0f} % of what was found was left out, most with the reason: {_isolated(reason)}"
        found.append(Finding(title, "If that is more than you expect, read the reasons below."))
    return found


def _isolated(name: str) -> str:
    """The name between marks that keep its direction of writing to itself; long ones are cut."""
    return f"\u2068{name[:60]}\u2069"


def plural(word: str, count: int) -> str:
    """The word with an s unless there is one of it."""
    return word if count == 1 else f"{word}s"
