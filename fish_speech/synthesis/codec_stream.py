"""Codes to sound while they come: the codec's state is kept between chunks, and a thread decodes them.

Where a chunk ends depends on the index of the frame alone, so that a sound is the same, bit for bit, whoever asks for
it and however fast its frames come.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..models import Codec

FIRST_CHUNK, CHUNK = 4, 8  # frames: the first sound comes early
LEAST_CORES = 4  # for decoding beside generation
MOST_WAITING = 4  # chunks, before generation waits for decoding


class ChunkDecoder:
    """Decodes the codes of one sound, chunk by chunk; together the chunks are what `codec.decode` makes of the whole."""

    def __init__(self, codec: Codec):
        self.codec = codec
        self._decode = codec.piece_decoder()

    def feed(self, codes: Tensor) -> np.ndarray:
        """Codes (codebooks, frames) int64 that follow those so far -> their sound (samples,) float32.

        Codes beyond the last one of their codebook count as the last one: a model may know more codes than its codec.
        Raises ValueError for another number of codebooks.
        """
        codec = self.codec
        if codes.size(0) != codec.codebooks:
            raise ValueError(f"codes have {codes.size(0)} rows; this codec has {codec.codebooks} codebooks")
        codes = within(codes, codec).to(codec.device)
        pieces = codes[None].split(codec.piece_frames, dim=2)
        return np.concatenate([self._decode(piece)[0].cpu().numpy() for piece in pieces])


def within(codes: Tensor, codec: Codec) -> Tensor:
    """Codes (codebooks, frames) with those that the codec does not know made the nearest ones that it does."""
    last = torch.tensor(codec.codebook_sizes, device=codes.device)[:, None] - 1  # (codebooks, 1)
    return codes.clamp(min=0).minimum(last)


def sound_of(codec: Codec, frames: Iterator[Tensor], beside: bool | None = None) -> Generator[np.ndarray, None, None]:
    """Yield the sound (samples,) float32 of `frames` (codebooks,) int64, decoding each chunk while the next one comes.

    `frames` is advanced, and closed, in the caller's thread; errors of it and of decoding reach the caller. Closing
    the iterator closes `frames` and ends the thread, at the latest when the chunk in work is done. `beside` false
    decodes in the caller's thread; None chooses by `decodes_beside`. The sound is the same.
    """
    try:
        decoded = _decoded_beside if (decodes_beside(codec) if beside is None else beside) else _decoded
        yield from decoded(ChunkDecoder(codec), _chunks(frames))
    finally:
        if hasattr(frames, "close"):
            frames.close()


def decodes_beside(codec: Codec) -> bool:
    """Whether a thread beside generation pays: not where both need all cores, nor on MPS, which wants one thread."""
    device = codec.device.type
    return device == "cuda" or (device == "cpu" and (os.cpu_count() or 1) >= LEAST_CORES)


def _chunks(frames: Iterator[Tensor]) -> Iterator[Tensor | None]:
    """Join frames to chunks (codebooks, frames); None after each frame that does not complete one."""
    kept: list[Tensor] = []
    size = FIRST_CHUNK
    for frame in frames:
        kept.append(frame)
        if len(kept) < size:
            yield None
        else:
            yield torch.stack(kept, dim=1)
            kept, size = [], CHUNK
    if kept:
        yield torch.stack(kept, dim=1)


def _decoded(decoder: ChunkDecoder, chunks: Iterator[Tensor | None]) -> Iterator[np.ndarray]:
    for codes in chunks:
        if codes is not None:
            yield decoder.feed(codes)


def _decoded_beside(decoder: ChunkDecoder, chunks: Iterator[Tensor | None]) -> Iterator[np.ndarray]:
    """Decode in a thread; what is done is given on after the frame that was made meanwhile."""
    waiting: deque[Future[np.ndarray]] = deque()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="codec")
    try:
        for codes in chunks:
            if codes is not None:
                waiting.append(pool.submit(decoder.feed, codes))
            while waiting and (waiting[0].done() or len(waiting) > MOST_WAITING):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
