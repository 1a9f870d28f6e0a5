"""How far bf16 and int8 weights agree with float32: `python -m benchmarks.agreement --model-path checkpoints/minnow`.

Each model is led along the same columns, those of float32 (best tokens, drawn tokens) and those of real recordings, and
at each place its logits are compared with float32's: whether the best token is the same (top-1), whether the same noise
draws the same token with the default sampling, the divergence KL(float32 || other), and the error relative to the
spread of the logits. `--speak` has sentences spoken and heard by pocketsphinx as well.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fish_speech.audio import read_audio
from fish_speech.device import probe_hardware
from fish_speech.errors import UserError
from fish_speech.models import DualAR, load_codec, load_dual_ar
from fish_speech.models.quantize import CompactLinear, quantize_int8
from fish_speech.synthesis.engine import engine_for
from fish_speech.synthesis.generation import generate_columns
from fish_speech.synthesis.sampling import SamplingConfig, token_probabilities
from fish_speech.text import request_block, system_block

from .heard import compare_heard
from .sizes import SCALES, Scale, random_model, random_prompt

SAMPLES = Path(__file__).parents[1] / "samples" / "allison"
GREEDY, DRAWN = SamplingConfig(temperature=0), SamplingConfig()
NO_PENALTY = SamplingConfig(repetition_penalty=1)
MakeModel = Callable[[str], DualAR]  # precision -> model


@dataclass(frozen=True)
class Passage:
    """A prompt and the columns that a model is led along after it."""

    material: str
    prompt: Tensor  # (1 + codebooks, tokens)
    columns: Tensor  # (1 + codebooks, frames)


@dataclass(frozen=True)
class Row:
    """How one precision agrees with float32 on one material, for the semantic token or for the other codebooks."""

    material: str
    precision: str
    part: str
    places: int
    top1: float  # share of places with the same best token
    drawn: float  # share of places where the same noise draws the same token
    divergence: float  # nats
    error: float  # root mean square, relative to the standard deviation of float32's logits

    def __str__(self) -> str:
        return (
            f"{self.material:<9} {self.precision:<5} {self.part:<15} {self.places:7d} {100 * self.top1:8.2f} "
            f"{100 * self.drawn:8.2f} {self.divergence:10.5f} {100 * self.error:8.2f}"
        )


HEADER = (
    f"{'columns':<9} {'':<5} {'part':<15} {'places':>7} {'top-1 %':>8} {'drawn %':>8} {'KL, nats':>10} {'error %':>8}"
)


@torch.inference_mode()
def led_logits(model: DualAR, passage: Passage) -> list[Tensor]:
    """Logits at every place of a passage: of tokens (frames, allowed), then of codebook 1, 2, ... (frames, size)."""
    engine = engine_for(model, passage.prompt.size(1) + passage.columns.size(1))
    allowed = _allowed_ids(model)
    rows: list[list[Tensor]] = [[] for _ in range(model.config.num_codebooks)]
    hidden = engine.prefill(passage.prompt)
    for column in passage.columns.unbind(1):
        rows[0].append(_token_logits(model, hidden, allowed))
        rows[1].append(engine.first_logits(hidden.clone(), column[1]).float().clone())
        for number in range(2, model.config.num_codebooks):
            rows[number].append(engine.next_logits(column[number]).float().clone())
        hidden = engine.step(column)
    return [torch.stack(part) for part in rows]


def _allowed_ids(model: DualAR) -> Tensor:
    count = min(model.config.codebook_size, model.tokenizer.num_semantic)
    return torch.tensor(
        [*range(model.semantic_begin_id, model.semantic_begin_id + count), model.tokenizer.id_of("<|im_end|>")]
    )


def _token_logits(model: DualAR, hidden: Tensor, ids: Tensor) -> Tensor:
    output = model.embeddings if model.config.tie_word_embeddings else model.output
    rows = output.rows(ids) if isinstance(output, CompactLinear) else output.weight[ids]
    return torch.nn.functional.linear(model.norm(hidden)[0].float(), rows.float())


def compare(reference: Sequence[list[Tensor]], other: Sequence[list[Tensor]], material: str, name: str) -> list[Row]:
    """Compare the logits of passages; one row for the semantic token, one for all other codebooks together."""
    joined = [
        [torch.cat([passage[head] for passage in side]) for head in range(len(side[0]))] for side in (reference, other)
    ]
    heads = [_head(a, b, seed) for seed, (a, b) in enumerate(zip(*joined, strict=True))]  # (places, 4) each
    rows = []
    for part, measured in (("semantic token", heads[0]), ("other codebooks", torch.cat(heads[1:]))):
        top1, drawn, divergence, error = measured.mean(dim=0).tolist()
        rows.append(Row(material, name, part, len(measured), top1, drawn, divergence, error**0.5))
    return rows


def _head(a: Tensor, b: Tensor, seed: int) -> Tensor:
    """(places, 4): same best token, same drawn token, divergence, squared relative error; of logits (places, size)."""
    noise = torch.empty_like(a).exponential_(1.0, generator=torch.Generator().manual_seed(seed))
    drawn = [
        torch.stack([(token_probabilities(row, NO_PENALTY) / n).argmax() for row, n in zip(side, noise, strict=True)])
        for side in (a, b)
    ]
    log_a, log_b = a.log_softmax(dim=-1), b.log_softmax(dim=-1)
    a, b = a - a.mean(dim=-1, keepdim=True), b - b.mean(dim=-1, keepdim=True)  # a constant changes no probability
    return torch.stack(
        [
            (a.argmax(dim=-1) == b.argmax(dim=-1)).float(),
            (drawn[0] == drawn[1]).float(),
            (log_a.exp() * (log_a - log_b)).sum(dim=-1),
            (a - b).square().mean(dim=-1) / a.var(dim=-1),
        ],
        dim=1,
    )


def measure(make: MakeModel, precisions: Sequence[str], passages_of: Callable[[DualAR], list[Passage]]) -> list[Row]:
    """Lead one model after the other along the passages that the float32 model gives; one model is held at a time."""
    model = make("fp32")
    passages = passages_of(model)
    reference = [led_logits(model, passage) for passage in passages]
    rows = []
    for precision in precisions:
        del model
        gc.collect()
        model = make(precision)
        found = [led_logits(model, passage) for passage in passages]
        for material in dict.fromkeys(passage.material for passage in passages):
            of = [index for index, passage in enumerate(passages) if passage.material == material]
            rows += compare([reference[i] for i in of], [found[i] for i in of], material, precision)
    return rows


def own_passages(model: DualAR, prompts: Sequence[Tensor], frames: int) -> list[Passage]:
    """Columns that the model itself makes after each prompt: its best tokens, and tokens drawn as the command line does."""
    end_id, passages = model.tokenizer.id_of("<|im_end|>"), []
    for material, sampling in (("greedy", GREEDY), ("drawn", DRAWN)):
        for seed, prompt in enumerate(prompts):
            rng = torch.Generator().manual_seed(seed)
            made = list(generate_columns(model, prompt, frames, sampling, rng, True, min_frames=frames))
            columns = torch.stack([column for column in made if column[0] != end_id], dim=1)
            passages.append(Passage(material, prompt, columns))
    return passages


def recorded_passages(model: DualAR, folder: Path, data: Path, clips: int, frames: int) -> list[Passage]:
    """Recordings of `data`, as their codec's columns after the prompt of their text; none without a codec in `folder`."""
    weights = folder / "codec.pth"
    if not weights.is_file():
        return []
    codec, passages = load_codec(weights), []
    for text_file in sorted(data.glob("*.txt"))[:clips]:
        waveform, _ = read_audio(text_file.with_suffix(".flac"), codec.sample_rate)
        codes = codec.encode_clips([torch.from_numpy(waveform)])[0][:, :frames]  # (codebooks, frames)
        columns = torch.cat([codes[:1] + model.semantic_begin_id, codes])
        passages.append(Passage("recorded", text_prompt(model, text_file.read_text(encoding="utf-8")), columns))
    return passages


def text_prompt(model: DualAR, text: str) -> Tensor:
    """The prompt that asks for `text`, without a reference."""
    codebooks = model.config.num_codebooks
    blocks = (system_block(model.tokenizer, codebooks), request_block(model.tokenizer, text.strip(), codebooks))
    return torch.cat([torch.from_numpy(block) for block in blocks], dim=1)


def load(folder: Path, precision: str) -> DualAR:
    """Load a model folder in "fp32", "bf16" or "int8"."""
    if precision == "int8":
        return load_dual_ar(folder, quantize=True)
    return load_dual_ar(folder, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)


def random(scale: Scale, precision: str) -> DualAR:
    """Make a random model whose weights are bfloat16 values, as released ones are."""
    model = random_model(scale).requires_grad_(False)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16() if precision == "bf16" else parameter.data.bfloat16().float()
    if precision == "int8":
        quantize_int8(model)
    return model


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--model-path", type=Path, help="a model folder")
    where.add_argument("--random", choices=sorted(SCALES), help="random weights of this size instead")
    parser.add_argument("--model-version", choices=sorted(SCALES["full"]), default="1.5", help="of random weights")
    parser.add_argument(
        "--data", type=Path, default=SAMPLES, help="folder of .flac with .txt (default: samples/allison)"
    )
    parser.add_argument(
        "--prompts", type=int, default=8, help="texts of the data folder, or random prompts (default: 8)"
    )
    parser.add_argument("--frames", type=int, default=64, help="longest passage, in frames (default: 64)")
    parser.add_argument("--speak", type=int, default=0, metavar="N", help="have N texts spoken and heard (default: 0)")
    options = parser.parse_args(arguments)
    precisions = ["bf16", "int8"] if probe_hardware().cpu_bf16 else ["int8"]
    prompts, frames = options.prompts, options.frames

    def passages_of(model: DualAR) -> list[Passage]:
        if options.random:
            rng = torch.Generator().manual_seed(0)
            scale = SCALES[options.random][options.model_version]
            text = scale.prompt_tokens // 2
            return own_passages(model, [random_prompt(scale, text, text, rng) for _ in range(prompts)], frames)
        texts = [path.read_text(encoding="utf-8") for path in sorted(options.data.glob("*.txt"))[:prompts]]
        made = own_passages(model, [text_prompt(model, text) for text in texts], frames)
        return made + recorded_passages(model, options.model_path, options.data, prompts, frames)

    def make(precision: str) -> DualAR:
        if options.random:
            return random(SCALES[options.random][options.model_version], precision)
        return load(options.model_path, precision)

    try:
        rows = measure(make, precisions, passages_of)
        print(HEADER, *rows, sep="\n")
        if options.speak and options.model_path:
            texts = [path.read_text(encoding="utf-8").strip() for path in sorted(options.data.glob("*.txt"))]
            print(*compare_heard(make, precisions, options.model_path, texts[: options.speak]), sep="\n")
    except UserError as error:
        parser.exit(2, f"{error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
