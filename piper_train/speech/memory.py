"""How much memory a voice may take: a model that learned too little may ask for a sentence of hours."""

from __future__ import annotations

import functools

from fish_speech.errors import UserError
from fish_speech.system_memory import memory

MOST_BYTES = 4 << 30  # quality medium takes 20 MB for a second of sound: over three minutes in one sentence
_LEAST_BYTES = 512 << 20
_SAID = ("failed to allocate", "available memory of", "bad_alloc", "bad allocation", "out of memory")


@functools.cache
def limit_memory() -> bool:
    """Bound what all onnxruntime sessions of this process that use its allocators take together; False if it cannot."""
    import onnxruntime

    total = memory()[0] or 2 * MOST_BYTES
    most = min(MOST_BYTES, max(total // 2, _LEAST_BYTES))
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    try:
        onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(most, -1, -1, -1))
    except Exception:  # somebody else in this process has registered one, or a build without an arena
        return False
    return True


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of onnxruntime says that memory ran out, or the bound was met."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in text for phrase in _SAID)


def too_long(symbols: int, length_scale: float) -> UserError:
    """What to tell when a sentence of that many ids took too much memory."""
    return UserError(
        "the voice ran out of memory in a sentence",
        f"for {symbols} phonemes and pauses it makes sound of minutes, as a voice does that has learned too little",
        "train it longer, or export an earlier checkpoint"
        + (f"; or lower the length scale, which is {length_scale:g}" if length_scale > 1 else ""),
    )
