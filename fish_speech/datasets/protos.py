"""Shards of packed training data: a stream of length-prefixed protobuf records, read and written one at a time.

Each record is a uint32 length in little-endian order and a serialised TextData (text_data.proto). Shards come from
other people's machines too, so a reader believes no length before the file has that many bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from ..errors import UserError
from .text_data_pb2 import Sentence, TextData

SUFFIXES = (".proto", ".protos")
LARGEST_RECORD = 512 << 20  # bytes; ours have 8 MiB, upstream's as much as a speaker needs
_LENGTH = struct.Struct("<I")


def read_records(path: str | Path) -> Iterator[TextData]:
    """Yield the records of a shard, one in memory at a time. Raises UserError where the file is torn or no shard."""
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"there is no shard {path}",
            "it is listed as training data",
            "run python -m fish_speech.build_dataset again",
        )
    with path.open("rb") as file:
        left = path.stat().st_size
        for number in range(1, 1 << 62):
            prefix = file.read(_LENGTH.size)
            left -= len(prefix)
            if not prefix:
                return
            if len(prefix) < _LENGTH.size:
                raise _broken(path, f"it ends inside the length of record {number}")
            (length,) = _LENGTH.unpack(prefix)
            if not 0 < length <= LARGEST_RECORD:
                raise _broken(path, f"record {number} claims {length} bytes")
            if length > left:
                raise _broken(path, f"record {number} claims {length} bytes, the file has {left} left")
            data = file.read(length)
            left -= length
            record = TextData()
            try:
                record.ParseFromString(data)
            except DecodeError:
                raise _broken(path, f"record {number} is not a TextData message") from None
            yield record


def _broken(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is torn or not a shard of training data",
        why,
        "delete it and run python -m fish_speech.build_dataset again",
    )


def framed(record: TextData | bytes) -> bytes:
    """Return a record, a message or its serialised form, as it stands in a shard."""
    data = record if isinstance(record, bytes) else record.SerializeToString()
    if not 0 < len(data) <= LARGEST_RECORD:
        raise ValueError(f"a record of {len(data)} bytes; 1 to {LARGEST_RECORD} can be read back")
    return _LENGTH.pack(len(data)) + data


def record_head(source: str, name: str) -> bytes:
    """Return the start of a serialised record; `record_sentence` results follow it."""
    return TextData(source=source, name=name).SerializeToString()


def record_sentence(texts: Iterable[str], codes: np.ndarray) -> bytes:
    """Return one clip as a piece of a serialised record. `codes` is (codebooks, frames), values below 2**32.

    Concatenated serialisations are the serialisation of the merged message, so pieces made in parallel can be joined.
    """
    sentence = Sentence(texts=texts)
    for row in codes:
        sentence.semantics.add().values.extend(row.tolist())
    return TextData(sentences=[sentence]).SerializeToString()


def sentence_codes(sentence: Sentence) -> np.ndarray:
    """Return the codes of a sentence, (codebooks, frames) int64. ValueError if its rows differ in length."""
    rows = [np.fromiter(row.values, np.int64, len(row.values)) for row in sentence.semantics]
    if not rows:
        return np.zeros((0, 0), np.int64)
    return np.stack(rows)
