"""Turn clips into pieces of records, in this process or in several, with the same result in the same order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import NamedTuple, Protocol, TypeVar

from ..errors import UserError
from ..workers import process_pool
from .code_origin import whose_codes
from .protos import record_sentence
from .sources import Clip, UnusableClip, read_codes, read_texts

T = TypeVar("T")
R = TypeVar("R")
CHUNK = 64  # clips handed to a worker at once
_AT_ONCE = 2048  # clips in flight, which bounds memory


class Run(Protocol):
    """A map over processes: results in the order of the items."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]: ...


class Packed(NamedTuple):
    """One clip as a piece of a serialised record, or why there is none."""

    clip: Clip
    piece: bytes = b""
    frames: int = 0
    reason: str | None = None


def pack_clip(codebooks: int, judged: tuple[Clip, str | None]) -> Packed:
    """Read one clip and serialise it; a clip with a reason to leave it out, or with other codebooks, is left out."""
    clip, reason = judged
    if reason is not None:
        return Packed(clip, reason=reason)
    try:
        codes = read_codes(clip.codes)
        if len(codes) != codebooks:
            return Packed(
                clip, reason=f"{len(codes)} codebooks{whose_codes(len(codes))}, where most clips have {codebooks}"
            )
        return Packed(clip, record_sentence(read_texts(clip), codes), codes.shape[1])
    except UnusableClip as error:
        return Packed(clip, reason=str(error))


@contextmanager
def worker_pool(processes: int) -> Iterator[Run]:
    """Yield a map over `processes` processes (this one alone if 1) that keeps order and holds little in memory."""
    if processes <= 1:
        yield map
        return
    executor = process_pool(processes)

    def run(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        rest = iter(items)
        while batch := list(itertools.islice(rest, _AT_ONCE)):
            yield from executor.map(function, batch, chunksize=CHUNK)

    try:
        yield run
    except BrokenProcessPool:
        raise UserError(
            "a worker process died",
            "something ended it from outside; most often the system, when memory runs out",
            "run the same command with --num-workers 1",
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
