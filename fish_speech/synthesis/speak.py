"""Text to waveform: split into segments, generate each with what was said before as context, decode."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..errors import UserError
from ..models import DualAR, FireflyCodec, LoraConfig, adapter_shape, load_adapter, load_codec, load_dual_ar, merge_lora
from ..text import reference_block, request_block, split_text, system_block
from .generate import codes_of, generate_columns
from .sampling import SamplingConfig
from .voices import Reference

log = logging.getLogger(__name__)

CONTEXT_LENGTH = 2048  # tokens of prompt and answer that the released system allows itself
ANSWER_LENGTH = 1024  # tokens of that kept for the answer
# Seconds of speech per byte of text: fast speech has 0.03, slow speech 0.1.
MIN_SECONDS_PER_BYTE, MAX_SECONDS_PER_BYTE, SPARE_SECONDS = 0.02, 0.15, 3.0


@dataclass(frozen=True)
class SpeechRequest:
    """What to say and how."""

    text: str
    references: Sequence[Reference] = ()
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    max_new_tokens: int | None = None  # per segment; None: by the length of its text; 0: up to the model's limit
    chunk_length: int = 200  # bytes of text per segment
    seed: int = 42


class Speaker:
    """A text-to-semantic model and a codec, loaded once, that speak any number of requests."""

    def __init__(self, model: DualAR, codec: FireflyCodec):
        if model.config.num_codebooks != codec.codebooks or codec.codebook_size > model.config.codebook_size:
            raise UserError(
                "the model and the codec do not fit together",
                f"the model writes {model.config.num_codebooks} codebooks of {model.config.codebook_size} codes, "
                f"the codec reads {codec.codebooks} of {codec.codebook_size}",
                "use the codec that belongs to the model version",
            )
        self.model, self.codec = model, codec
        self.unfinished = 0  # segments so far that the model did not end by itself

    def segments(self, request: SpeechRequest) -> Iterator[np.ndarray]:
        """Yield the waveform of each segment of the text, float32 (samples,)."""
        for codes in self.codes(request):
            if codes.size(1):
                yield self.codec.decode(codes[None].to(self.codec.device))[0, 0].cpu().numpy()

    def codes(self, request: SpeechRequest) -> Iterator[torch.Tensor]:
        """Yield the codes (codebooks, frames) of each segment. Raises UserError if there is nothing to say."""
        model, codebooks = self.model, self.model.config.num_codebooks
        texts = split_text(request.text, request.chunk_length)
        if not texts:
            raise UserError("there is nothing to say", "the text has no letters or digits", "give a text")
        opening = [system_block(model.tokenizer, codebooks)]
        opening += [reference_block(model.tokenizer, r.text, r.codes, codebooks) for r in request.references]
        rng = torch.Generator(model.device).manual_seed(request.seed)
        history: list[np.ndarray] = []
        for index, text in enumerate(texts):
            history.append(request_block(model.tokenizer, text, codebooks))
            prompt = np.concatenate([*opening, *self._context(opening, history)], axis=1)
            columns = self._generate(prompt, text, request, rng)
            codes = codes_of(columns, model)
            log.info("segment %d/%d: %.1f s  %s", index + 1, len(texts), codes.size(1) / self.codec.frame_rate, text)
            history.append(torch.stack(columns, dim=1).numpy())
            yield codes.clamp(max=self.codec.codebook_size - 1)

    def _generate(
        self, prompt: np.ndarray, text: str, request: SpeechRequest, rng: torch.Generator
    ) -> list[torch.Tensor]:
        limit, size = request.max_new_tokens, len(text.encode())
        least = math.ceil(MIN_SECONDS_PER_BYTE * size * self.codec.frame_rate)
        if limit is None:
            limit = math.ceil((SPARE_SECONDS + MAX_SECONDS_PER_BYTE * size) * self.codec.frame_rate)
        try:
            prompt_tokens, sampling = torch.from_numpy(prompt), request.sampling
            found = list(generate_columns(self.model, prompt_tokens, limit, sampling, rng, True, least))
        except ValueError as error:
            raise UserError(
                "the prompt is too long for this model", str(error), "use a shorter reference or --chunk-length"
            ) from error
        if found[-1][0] != self.model.tokenizer.id_of("<|im_end|>"):
            self.unfinished += 1
            log.warning("the model did not end this segment by itself; it was cut after %d frames", len(found))
        return found

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


def load_speaker(
    folder: Path,
    codec_path: Path,
    codec_config: dict | None = None,
    checkpoint: Path | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Speaker:
    """Load a model folder and a codec; with `checkpoint`, its adapter is merged in memory, or its full weights taken.

    Raises UserError for folders, weights or a checkpoint that do not fit.
    """
    if checkpoint is None:
        model = load_dual_ar(folder, device=device, dtype=dtype)
    else:
        shape = adapter_shape(checkpoint)
        if shape is None:
            model = load_dual_ar(folder, device=device, dtype=dtype, weights=checkpoint)
            return Speaker(model, load_codec(codec_path, codec_config, device=device))
        if "lora_alpha" not in shape:
            raise UserError(
                f"{checkpoint} does not say its LoRA shape",
                "only checkpoints of this toolkit can be spoken without merging",
                "merge it first: python -m fish_speech.merge_lora --lora-config ... --lora-weight ... --output ...",
            )
        model = load_dual_ar(folder, dtype=dtype, lora=LoraConfig(**shape))
        load_adapter(model, checkpoint)
        merge_lora(model)
        model.to(device)
    return Speaker(model, load_codec(codec_path, codec_config, device=device))
