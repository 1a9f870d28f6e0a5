"""The sizes that are measured, of each model version, and random models of those sizes."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fish_speech.checkpoint import save_state_dict, save_torch
from fish_speech.files import write_text
from fish_speech.models import DualAR, DualARConfig, LoraConfig, install_lora
from fish_speech.models.codec import Codec
from fish_speech.models.codec_loading import architecture_of, codec_config, make_codec_config
from fish_speech.models.lora import is_lora_name
from fish_speech.text.special_tokens import SPECIAL_TOKENS_1_5, SPECIAL_TOKENS_S1
from fish_speech.versions import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE

LORA = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.01)

FISH_1_5: dict[str, Any] = {
    "dim": 1024,
    "n_layer": 24,
    "n_head": 16,
    "n_local_heads": 2,
    "intermediate_size": 4096,
    "vocab_size": 102048,
    "max_seq_len": 8192,
    "rope_base": 1e6,
    "norm_eps": 1e-6,
    "dropout": 0.1,
    "tie_word_embeddings": False,
    "codebook_size": 1024,
    "num_codebooks": 8,
    "n_fast_layer": 4,
}
TINY: dict[str, Any] = {
    **FISH_1_5,
    **{"dim": 32, "n_layer": 2, "n_head": 4, "intermediate_size": 48, "vocab_size": 1344, "max_seq_len": 128},
    **{"codebook_size": 40, "num_codebooks": 3, "n_fast_layer": 1},
}
S1_MINI: dict[str, Any] = {
    "dim": 1024,
    "n_layer": 28,
    "n_head": 16,
    "n_local_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 155776,
    "max_seq_len": 8192,
    "rope_base": 1e6,
    "norm_eps": 1e-6,
    "dropout": 0.0,
    "tie_word_embeddings": False,
    "attention_o_bias": False,
    "attention_qk_norm": True,
    "codebook_size": 4096,
    "num_codebooks": 10,
    "initializer_range": 0.03125,
    "scale_codebook_embeddings": True,
    "n_fast_layer": 4,
    "fast_head_dim": 64,
    "fast_attention_qk_norm": False,
}
TINY_S1: dict[str, Any] = {
    **S1_MINI,
    **{"dim": 32, "n_layer": 2, "n_head": 4, "n_local_heads": 2, "head_dim": 12, "intermediate_size": 48},
    **{"vocab_size": 4416, "max_seq_len": 128, "codebook_size": 1100, "num_codebooks": 4, "n_fast_layer": 1},
    **{"fast_head_dim": 8},
}
TINY_CODEC: dict[str, Any] = {
    "spec_transform": {"n_mels": 20, "n_fft": 256, "hop_length": 64, "win_length": 256},
    "backbone": {"input_channels": 20, "depths": (1, 1), "dims": (8, 12)},
    "quantizer": {"input_dim": 12, "n_groups": 3, "levels": (8, 5)},
    "head": {
        "hop_length": 64,
        "upsample_rates": (8, 8),
        "upsample_kernel_sizes": (16, 16),
        "num_mels": 12,
        "upsample_initial_channel": 8,
    },
}
_TINY_WINDOWED: dict[str, Any] = {"n_layer": 1, "n_head": 2, "dim": 64, "intermediate_size": 32, "window": 8}
TINY_S1_CODEC: dict[str, Any] = {
    "architecture": "modded_dac",
    "encoder_dim": 8,
    "encoder_rates": [2, 4, 8],
    "decoder_dim": 32,
    "decoder_rates": [8, 4, 2],
    "encoder_transformer_layers": [0, 0, 1],
    "quantizer": {
        "input_dim": 64,
        "n_codebooks": 3,
        "codebook_size": 1024,
        "semantic_codebook_size": 1100,
        "pre_module": _TINY_WINDOWED,
        "post_module": _TINY_WINDOWED,
    },
}


@dataclass(frozen=True)
class Scale:
    """How large everything of a model version is in one run of the benchmarks."""

    model: dict[str, Any]  # of a DualARConfig
    ranks: int  # entries of the tokenizer file; special tokens follow
    special_tokens: tuple[str, ...]
    codec: dict[str, Any]  # content of a codec's yaml
    batches: dict[str, tuple[int, ...]]  # name -> length of each row, in tokens
    prompt_tokens: int
    frames: int  # to generate
    labelled_text: int = 0  # tokens of text before the frames that have a loss
    clips_s: tuple[float, ...] = (5, 6, 7, 8, 9, 10)  # encoded together
    decode_s: float = 10
    memory_mb: int = 1024  # read to measure the memory's bandwidth

    @property
    def semantic_begin_id(self) -> int:
        """Id of semantic token 0."""
        return self.id_of("<|semantic:0|>")

    @property
    def end_id(self) -> int:
        """Id of `<|im_end|>`."""
        return self.id_of("<|im_end|>")

    def id_of(self, token: str) -> int:
        """Id of a special token."""
        return self.ranks + self.special_tokens.index(token)


_FULL: dict[str, Any] = {
    "batches": {"1x256": (256,), "4x512": (512, 430, 350, 260)},
    "prompt_tokens": 100,
    "frames": 64,
}
_TINY: dict[str, Any] = {
    "batches": {"1x256": (24,), "4x512": (32, 26, 22, 16)},
    "prompt_tokens": 10,
    "frames": 6,
    "clips_s": (0.2, 0.3),
    "decode_s": 0.3,
    "memory_mb": 16,
}
SCALES: dict[str, dict[str, Scale]] = {
    "full": {
        "1.5": Scale(FISH_1_5, 100_000, SPECIAL_TOKENS_1_5, codec_config("firefly_gan_vq"), **_FULL, labelled_text=1),
        "s1-mini": Scale(S1_MINI, 151_643, SPECIAL_TOKENS_S1, codec_config("modded_dac_vq"), **_FULL),
    },
    "tiny": {
        "1.5": Scale(TINY, 300, SPECIAL_TOKENS_1_5, TINY_CODEC, **_TINY, labelled_text=1),
        "s1-mini": Scale(TINY_S1, 300, SPECIAL_TOKENS_S1, TINY_S1_CODEC, **_TINY),
    },
}


@dataclass(frozen=True)
class FewTokens:
    """What generation asks of a tokenizer, without a tokenizer file."""

    end_id: int
    num_semantic: int

    def id_of(self, token: str) -> int:
        """Id of `<|im_end|>`, the only token that generation names."""
        assert token == "<|im_end|>"
        return self.end_id


def random_model(scale: Scale, lora: bool = False) -> DualAR:
    """Make a float32 model with random weights; with `lora`, its base frozen and fresh adapters installed."""
    with torch.device("meta"):
        model = DualAR(DualARConfig.from_mapping(scale.model), scale.semantic_begin_id)
    model.to_empty(device="cpu")
    model.reset_parameters(torch.Generator().manual_seed(0))
    model.tokenizer = FewTokens(scale.end_id, model.config.semantic_tokens)
    if lora:
        install_lora(model, LORA)
    return model.eval()


def random_codec(scale: Scale) -> Codec:
    """Make a codec with torch's own initial weights."""
    torch.manual_seed(0)
    config = make_codec_config(scale.codec, "the codec of the benchmarks")
    return architecture_of(config).codec(config).eval()


def training_batch(scale: Scale, lengths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Make a padded batch with the labels of real ones; of each row 40 % are text and 60 % frames."""
    rng = torch.Generator().manual_seed(1)
    codebooks, longest = scale.model["num_codebooks"], max(lengths)
    inputs = torch.zeros(len(lengths), 1 + codebooks, longest, dtype=torch.int64)
    inputs[:, 0] = scale.id_of("<|end_of_text|>")
    labels = torch.full_like(inputs, -100)
    for row, length in enumerate(lengths):
        text = round(0.4 * length)
        tokens = random_prompt(scale, text, length - text, rng)
        following = torch.cat([tokens[0, 1:], torch.tensor([scale.end_id])])
        inputs[row, :, :length] = tokens
        first = text - 1 - scale.labelled_text
        labels[row, 0, first:length] = following[first:]
        labels[row, 1:, text - 1 : length] = torch.cat([tokens[1:, text:], torch.zeros(codebooks, 1)], dim=1).long()
    padding = torch.arange(longest) >= torch.tensor(lengths)[:, None]
    return {"inputs": inputs, "labels": labels, "attention_masks": padding}


def random_prompt(scale: Scale, text: int, frames: int, rng: torch.Generator) -> torch.Tensor:
    """Make text tokens followed by frames, (1 + codebooks, tokens)."""
    codebooks = scale.model["num_codebooks"]
    codes = torch.randint(1, min(1000, scale.model["codebook_size"]), (codebooks, frames), generator=rng)
    grid = torch.zeros(1 + codebooks, text + frames, dtype=torch.int64)
    grid[0, :text] = torch.randint(0, scale.ranks, (text,), generator=rng)
    grid[0, text:] = codes[0] + scale.semantic_begin_id
    grid[1:, text:] = codes
    return grid


def random_clips(scale: Scale, seconds: tuple[float, ...]) -> list[torch.Tensor]:
    """Make noise of these lengths at the codec's sample rate, (samples,) each."""
    rng = torch.Generator().manual_seed(2)
    return [0.1 * torch.randn(round(s * 44100), generator=rng) for s in seconds]


def write_model_folder(scale: Scale, folder: Path) -> None:
    """Write a random bfloat16 model in the published format, and LoRA weights for it as `adapter.ckpt`."""
    model = random_model(scale)
    save_state_dict(folder / WEIGHTS_FILE, {name: t.bfloat16() for name, t in model.state_dict().items()})
    write_text(folder / CONFIG_FILE, model.config.to_json())
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(_tokens(scale.ranks)))
    write_text(folder / TOKENIZER_FILE, "".join(lines))
    install_lora(model, LORA)
    rng = torch.Generator().manual_seed(3)
    adapter = {
        f"model.{name}": 0.01 * torch.randn(tensor.shape, generator=rng)
        for name, tensor in model.state_dict().items()
        if is_lora_name(name)
    }
    shape = {"r": LORA.r, "lora_alpha": LORA.lora_alpha, "lora_dropout": LORA.lora_dropout}
    save_torch(
        folder / "adapter.ckpt", {"state_dict": adapter, "global_step": 100, "fish_speech": {"lora": dict(shape)}}
    )


def _tokens(count: int) -> Iterator[bytes]:
    """All single bytes, then all pairs, then triples: `count` tokens that byte-pair encoding can reach."""
    every = itertools.chain.from_iterable(itertools.product(range(256), repeat=length) for length in (1, 2, 3))
    return (bytes(token) for token in itertools.islice(every, count))
