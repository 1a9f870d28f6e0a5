"""A row: what is known of one segment of a recording, a line of manifest.jsonl."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
Key = tuple[str, str]  # source, speaker: a recording may be in a set under two names


def blank_row() -> Row:
    """A row in which nothing is known. Its keys are those of the manifest, in order."""
    return {
        "source": None,  # absolute path of the recording, or the address that could not be fetched
        "start_s": 0.0,  # of the segment in the recording
        "end_s": None,  # None: the recording cannot be read
        "speaker": None,
        "clip": None,  # path below the output; None: left out
        "text": None,
        "written": None,  # the text as it was before a person corrected it in the .lab; None: as `text`
        "left_out": None,  # why, as `category: details`
        "duration_s": None,
        "lufs": None,  # integrated loudness of the clip as written
        "peak_dbfs": None,
        "gain_db": None,  # by which it was made louder
        "clipped_share": None,
        "snr_db": None,
        "bandwidth_hz": None,
        "characters_per_s": None,
        "transcript": None,  # where the text comes from
        "confidence": None,  # 0-1, None: nobody has checked the text
        "duplicate_of": None,
        "speaker_similarity": None,
        "speaker_outlier": None,
        "dnsmos": None,
        "sample_rate": None,  # Hz, of the recording
        "source_s": None,  # seconds of the whole recording
        "source_bytes": None,
        "source_mtime_ns": None,
        "url": None,
        "fingerprint": None,
        "made_with": None,  # digest of the settings; None: to be tried again
    }
