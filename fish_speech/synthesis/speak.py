"""Text to waveform: split into segments, generate each with what was said before as context, decode while generating.

Every segment has random numbers of its own: what is said for it is a pure function of weights, prompt, sampling and
seed, and so the same as a stream or a file, generated or remembered, alone or in a batch.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import UserError
from ..models import Codec, DualAR
from ..text import reference_block, request_block, system_block
from ..text.segments import Segment, split_segments
from .attempts import Attempt, Chosen, best_attempt
from .cache_key import segment_key
from .codec_stream import sound_of, within
from .effects import EffectChain, Effects
from .generation import codes_of, generate_columns
from .joining import Joiner
from .length_limit import least_frames, longest_frames
from .sampling import SamplingConfig
from .voices import Reference

if TYPE_CHECKING:
    from .cache import TokenCache
    from .verify import Verdict, Verifier

log = logging.getLogger(__name__)

CONTEXT_LENGTH = 2048  # tokens of prompt and answer that the released system allows itself
ANSWER_LENGTH = 1024  # tokens of that kept for the answer


@dataclass(frozen=True)
class SpeechRequest:
    """What to say and how."""

    text: str
    references: Sequence[Reference] = ()
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    max_new_tokens: int | None = None  # per segment; None: by the length of its text; 0: up to the model's limit
    chunk_length: int = 200  # bytes of text per segment
    seed: int = 42
    effects: Effects = field(default_factory=Effects)
    marker: str = ""  # put before each segment, as "(angry) ", for versions that obey markers


@dataclass(frozen=True)
class Said:
    """How a segment came out."""

    index: int  # from 0
    count: int  # of segments
    text: str
    frames: int
    seconds: float  # of sound, before it is joined and changed
    ended: bool  # whether the model ended it by itself
    remembered: bool  # whether it came from the cache
    tried: int = 1  # attempts
    verdict: Verdict | None = None  # of the recogniser, if one listened


class Stopped(Exception):
    """The caller wanted no more."""


@dataclass
class _Segment:
    """A segment on its way: what decides its columns, and the columns so far."""

    index: int
    count: int
    part: Segment
    following: str | None  # text of the next one
    prompt: np.ndarray  # (1 + codebooks, tokens)
    seed: int
    limit: int  # frames; 0: the model's
    least: int  # frames
    columns: list[torch.Tensor] = field(default_factory=list)  # (1 + codebooks,) each
    remembered: bool = False


class Speaker:
    """A text-to-semantic model and a codec, loaded once, that speak any number of requests, one at a time."""

    def __init__(self, model: DualAR, codec: Codec):
        if model.config.num_codebooks != codec.codebooks or codec.codebook_size > model.config.codebook_size:
            raise UserError(
                "the model and the codec do not fit together",
                f"the model writes {model.config.num_codebooks} codebooks of up to {model.config.codebook_size} codes, "
                f"the codec reads {codec.codebooks} of up to {codec.codebook_size}",
                "use the codec that belongs to the model version",
            )
        self.model, self.codec = model, codec
        self.unfinished = 0  # segments so far that the model did not end by itself
        config = model.config
        self._sizes = (config.vocab_size, *config.codebook_sizes)  # ids of each row of a column
        self._end_id = model.tokenizer.id_of("<|im_end|>")
        self._cache: TokenCache | None = None
        self._identity = ""

    @property
    def sample_rate(self) -> int:
        """Of the sound, in Hz."""
        return self.codec.sample_rate

    def remember(self, cache: TokenCache, identity: str) -> None:
        """Look in `cache` before generating, and keep there what was; `identity` tells these weights from all others."""
        self._cache, self._identity = cache, identity

    def stream(
        self,
        request: SpeechRequest,
        verifier: Verifier | None = None,
        tell: Callable[[Said], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Generator[np.ndarray, None, None]:
        """Yield the speech as it is made, float32 pieces (samples,), with pauses between segments and effects applied.

        Closing the iterator stops the generation; so does `stop`, asked before each frame, from another thread, say:
        Stopped is raised then. With `verifier` a segment is heard before any of it is given out. `tell` is called
        after each segment. Raises UserError if there is nothing to say.
        """
        joiner, chain = Joiner(self.sample_rate), EffectChain(request.effects, self.sample_rate)
        with closing(self._segments(request, verifier, tell, stop)) as segments:
            for segment, pieces in segments:
                with closing(pieces):
                    for piece in pieces:
                        yield from _some(chain.feed(joiner.feed(piece)))
                part = segment.part
                yield from _some(chain.feed(joiner.end_segment(part.text, segment.following, part.ending)))
        yield from _some(chain.feed(joiner.finish()))
        yield from _some(chain.finish())

    def segments(self, request: SpeechRequest) -> Iterator[np.ndarray]:
        """Yield the bare waveform of each segment that has any, float32 (samples,): no pauses, no effects."""
        for _, pieces in self._segments(request):
            found = list(pieces)
            if found:
                yield np.concatenate(found)

    def codes(self, request: SpeechRequest) -> Iterator[torch.Tensor]:
        """Yield the codes (codebooks, frames) of each segment."""
        for segment in self._prompts(request):
            for _ in self._frames(segment, request):
                pass
            self._told(segment)
            yield within(codes_of(segment.columns, self.model), self.codec)

    def _segments(
        self,
        request: SpeechRequest,
        verifier: Verifier | None = None,
        tell: Callable[[Said], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Generator[tuple[_Segment, Generator[np.ndarray, None, None]], None, None]:
        """Yield each segment with its sound, all of which must be taken before the next is asked for."""
        for segment in self._prompts(request):
            if verifier is None:
                yield segment, sound_of(self.codec, self._frames(segment, request, stop))
                self._told(segment, tell)
            else:
                chosen = self._listen(segment, request, verifier, stop)
                yield segment, (piece for piece in [chosen.attempt.waveform])
                self._told(segment, tell, chosen)

    def _prompts(self, request: SpeechRequest) -> Iterator[_Segment]:
        """Yield each segment with its prompt; its columns must be there when the next is asked for, which goes on from it.

        Raises UserError if there is nothing to say.
        """
        tokenizer, codebooks = self.model.tokenizer, self.model.config.num_codebooks
        texts = split_segments(request.text, request.chunk_length)
        if not texts:
            raise UserError("there is nothing to say", "the text has no letters or digits", "give a text")
        opening = [system_block(tokenizer, codebooks)]
        opening += [reference_block(tokenizer, r.text, r.codes, codebooks) for r in request.references]
        history: list[np.ndarray] = []
        for index, part in enumerate(texts):
            history.append(request_block(tokenizer, request.marker + part.text, codebooks))
            prompt = np.concatenate([*opening, *self._context(opening, history)], axis=1)
            limit = request.max_new_tokens
            segment = _Segment(
                index,
                len(texts),
                part,
                texts[index + 1].text if index + 1 < len(texts) else None,
                prompt,
                segment_seed(request.seed, index),
                longest_frames(part.text, self.codec.frame_rate) if limit is None else limit,
                least_frames(part.text, self.codec.frame_rate),
            )
            yield segment
            answer = torch.stack(segment.columns, dim=1).numpy()  # (1 + codebooks, columns)
            if not self._ended(segment):  # cut by its limit: what follows must not stand in the same turn
                end = np.zeros_like(answer[:, :1])
                end[0] = self._end_id
                answer = np.concatenate([answer, end], axis=1)
            history.append(answer)

    def _frames(
        self, segment: _Segment, request: SpeechRequest, stop: Callable[[], bool] | None = None
    ) -> Iterator[torch.Tensor]:
        """Yield the codes (codebooks,) of each frame, from the cache if they are there, and note them in the segment."""
        cache = self._cache
        key = "" if cache is None else segment_key(self._identity, segment.prompt, request.sampling, segment.seed,
                                                   segment.limit, segment.least)  # fmt: skip
        known = None if cache is None else cache.get(key, self._sizes)
        if known is not None:
            segment.remembered = True
            columns: Iterable[torch.Tensor] = torch.from_numpy(known).unbind(1)
        else:
            rng = torch.Generator(self.model.device).manual_seed(segment.seed)
            columns = self._generate(segment, request.sampling, rng)
        for column in columns:
            if stop is not None and stop():
                raise Stopped
            segment.columns.append(column)
            if column[0] != self._end_id:
                yield column[1:]
        if cache is not None and not segment.remembered:
            cache.put(key, torch.stack(segment.columns, dim=1).numpy())

    def _generate(self, segment: _Segment, sampling: SamplingConfig, rng: torch.Generator) -> Iterator[torch.Tensor]:
        prompt = torch.from_numpy(segment.prompt)
        try:
            yield from generate_columns(self.model, prompt, segment.limit, sampling, rng, True, segment.least)
        except ValueError as error:
            raise UserError(
                "the prompt is too long for this model", str(error), "use a shorter reference or --chunk-length"
            ) from error

    def _listen(
        self, segment: _Segment, request: SpeechRequest, verifier: Verifier, stop: Callable[[], bool] | None
    ) -> Chosen:
        """Speak a segment until the recogniser is content; the columns of the best attempt become the segment's."""
        tries: list[_Segment] = []

        def speak(number: int) -> Attempt:
            seed = segment_seed(request.seed, segment.index, number)
            attempt = replace(segment, seed=seed, columns=[], remembered=False)
            tries.append(attempt)
            pieces = list(sound_of(self.codec, self._frames(attempt, request, stop)))
            sound = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
            return Attempt(torch.stack(attempt.columns, dim=1).numpy(), sound, self.sample_rate, self._ended(attempt))

        chosen = best_attempt(speak, verifier, segment.part.text)
        segment.columns, segment.remembered = tries[chosen.number].columns, tries[chosen.number].remembered
        return chosen

    def _ended(self, segment: _Segment) -> bool:
        return bool(segment.columns[-1][0] == self._end_id)

    def _told(
        self, segment: _Segment, tell: Callable[[Said], None] | None = None, chosen: Chosen | None = None
    ) -> None:
        """Count, log and tell how a segment came out."""
        ended, text = self._ended(segment), segment.part.text
        frames = len(segment.columns) - ended
        seconds = frames / self.codec.frame_rate
        source = " (from the cache)" if segment.remembered else ""
        log.info("segment %d/%d: %.1f s%s  %s", segment.index + 1, segment.count, seconds, source, text)
        if not ended:
            self.unfinished += 1
            log.warning("the model did not end this segment by itself; it was cut after %d frames", frames)
        if tell is not None:
            tried, verdict = (1, None) if chosen is None else (chosen.tried, chosen.verdict)
            tell(Said(segment.index, segment.count, text, frames, seconds, ended, segment.remembered, tried, verdict))

    def _context(self, opening: list[np.ndarray], history: list[np.ndarray]) -> list[np.ndarray]:
        """The part of the history that fits: all of it, or the first turn and the newest ones, as released."""
        total = min(CONTEXT_LENGTH, self.model.config.max_seq_len)
        room = total - min(ANSWER_LENGTH, total // 2) - sum(block.shape[1] for block in opening)
        count = used = 0
        for block in reversed(history):
            used += block.shape[1]
            if used > room:
                break
            count += 1
        count = max(1, count - 1 if count % 2 == 0 else count)  # whole turns: every request with its answer
        if count >= len(history) - 2:
            return history
        return [*history[:2], *history[-count:]]


def segment_seed(seed: int, index: int, attempt: int = 0) -> int:
    """The seed of a segment's random numbers; that of the first segment's first attempt is the request's."""
    if index == attempt == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {index} {attempt}".encode()).digest()[:8], "little") >> 1


def _some(sound: np.ndarray) -> Iterator[np.ndarray]:
    if len(sound):
        yield sound
