"""Sum up the clips of a system, and name what is reported: one table of columns for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .intelligibility import ErrorCounts

_DRAWS = 1000  # of the bootstrap
_MEANS = ("similarity", "similarity_to_original", "mel_l1", "lufs", "leading_silence_s", "trailing_silence_s")
_MARKS = ("overall", "signal", "background", "p808")


@dataclass(frozen=True)
class Column:
    """A figure that is reported for clips and systems."""

    key: str  # in the summary, and in a clip's values
    title: str
    better: str  # "higher", "lower", or "" where neither is better
    meaning: str
    digits: int = 2
    percent: bool = False

    def show(self, value: Any) -> str:
        """The figure as a reader wants it; a dash where there is none."""
        if value is None:
            return "–"
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{100 * value:.{self.digits}f} %" if self.percent else f"{value:.{self.digits}f}"


COLUMNS = (
    Column("wer", "WER", "lower", "word errors heard by the recogniser: all edits / all words", 3),
    Column("cer", "CER", "lower", "character errors: all edits / all characters", 3),
    Column("wer_added", "WER added", "lower", "WER of a codec's output minus that of its originals", 3),
    Column("similarity", "similarity", "higher", "cosine to the mean voice of the target speaker's recordings", 3),
    Column("similarity_to_original", "sim. to original", "higher", "cosine of a codec's output and its original", 3),
    Column("voiceless", "no voice", "lower", "clips without a voice; they count in no similarity", 0),
    Column("held_out_loss", "held-out loss", "lower", "mean training loss of clips that were never trained on", 3),
    Column("mel_l1", "mel L1", "lower", "distance of the log-mel spectrograms of a codec's output and its original", 3),
    Column("dnsmos_overall", "MOS", "higher", "DNSMOS overall, 1-5: imitates listeners' marks"),
    Column("dnsmos_signal", "MOS speech", "higher", "DNSMOS of the speech itself, 1-5"),
    Column("dnsmos_background", "MOS backgr.", "higher", "DNSMOS of the background, 1-5: 5 is free of noise"),
    Column("ends_by_itself", "ends by itself", "higher", "share of sentences that the model ended before the limit", 0, True),
    Column("trailing_silence_s", "tail s", "", "silence at the end, seconds"),
    Column("words_per_s", "words/s", "", "speaking rate: words per second from first to last sound"),
    Column("characters_per_s", "chars/s", "", "speaking rate: letters per second from first to last sound", 1),
    Column("lufs", "LUFS", "", "integrated loudness (ITU-R BS.1770)", 1),
    Column("duration_s", "mean s", "", "duration of a clip, seconds"),
)  # fmt: skip


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up clips' values. What no clip has is missing; error rates are all edits / all words, not means of rates."""
    good = [row for row in rows if row.get("failure") is None]
    summary: dict[str, Any] = {"clips": len(good), "failed": len(rows) - len(good)}
    for name, counts in (("wer", "word_errors"), ("cer", "character_errors")):
        found = [ErrorCounts(**row[counts]) for row in good if counts in row]
        total = sum(found, ErrorCounts())
        if found:
            length = {f"{counts}_of": total.length}
            summary |= {name: total.rate, f"{name}_95": rate_interval(found), counts: total.edits, **length}
    originals = [ErrorCounts(**row["original_word_errors"]) for row in good if "original_word_errors" in row]
    if originals:
        original = sum(originals, ErrorCounts()).rate
        added = None if original is None else summary["wer"] - original
        summary |= {"wer_original": original, "wer_added": added}
    voiceless = sum(row.get("voiceless", False) for row in good)
    if voiceless:
        summary["voiceless"] = voiceless
    for name in _MEANS:
        summary |= _mean(name, [row[name] for row in good if row.get(name) is not None])
    for mark in _MARKS:
        summary |= _mean(f"dnsmos_{mark}", [row["dnsmos"][mark] for row in good if row.get("dnsmos")])
    seconds = [row["duration_s"] for row in good if "duration_s" in row]
    if seconds:
        summary |= {"duration_s": float(np.mean(seconds)), "total_s": float(np.sum(seconds))}
    for name in ("words_per_s", "characters_per_s"):
        spoken = [row for row in good if name in row]
        if spoken:
            units = sum(row[name] * row["speech_s"] for row in spoken)
            summary[name] = units / sum(row["speech_s"] for row in spoken)
    ended = [row["ends_by_itself"] for row in good if "ends_by_itself" in row]
    if ended:
        summary["ends_by_itself"] = sum(ended) / len(ended)
    return summary


def _mean(name: str, values: list[float]) -> dict[str, float]:
    return {name: float(np.mean(values))} if values else {}


def rate_interval(counts: Sequence[ErrorCounts], seed: int = 0) -> list[float] | None:
    """The range in which 95 % of corpus error rates fall if clips are drawn anew (bootstrap); None without words.

    Two systems whose ranges overlap widely cannot be told apart by so few clips.
    """
    edits, lengths = np.array([c.edits for c in counts]), np.array([c.length for c in counts])
    if not lengths.sum():
        return None
    drawn = np.random.default_rng(seed).integers(0, len(counts), (_DRAWS, len(counts)))
    totals = lengths[drawn].sum(axis=1)
    rates = edits[drawn].sum(axis=1)[totals > 0] / totals[totals > 0]
    return [float(value) for value in np.percentile(rates, (2.5, 97.5))]


def plain_table(results: Sequence[Mapping[str, Any]]) -> str:
    """The summaries as a table of text, systems below each other; columns that nobody has are left out."""
    columns = columns_of(results)
    rows = [["system", "clips", *(column.title for column in columns)]]
    for result in results:
        summary = result["summary"]
        rows.append([result["name"], str(summary["clips"]), *(c.show(summary.get(c.key)) for c in columns)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    )


def columns_of(results: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The columns that at least one system has a figure for."""
    return [column for column in COLUMNS if any(r["summary"].get(column.key) is not None for r in results)]


def clip_value(row: Mapping[str, Any], key: str) -> Any:
    """A clip's figure for a column; None if it has none."""
    if key.startswith("dnsmos_"):
        return (row.get("dnsmos") or {}).get(key.removeprefix("dnsmos_"))
    return row.get(key)
