"""Shared fixtures: golden answers, models filled by the golden rule, and small checkpoint folders in the published format."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

# Tiny models: one thread is fastest, and test processes run side by side. Read when torch is imported, here and in the
# scripts that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Started in the background of a shell, a process ignores Ctrl+C, and so do the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "golden"))
from fill import fill_state_dict

GOLDEN = Path(__file__).parent / "golden" / "fish-1.5"
S1_GOLDEN = Path(__file__).parent / "golden" / "openaudio-s1-mini"
PIPER_GOLDEN = Path(__file__).parent / "golden" / "piper"
REPO = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="session")
def no_cache_of_earlier_runs(tmp_path_factory):
    """What tests speak, here and in scripts they start, is remembered for these tests only."""
    os.environ["FISH_SPEECH_CACHE"] = str(tmp_path_factory.mktemp("speech_cache"))


def read_golden(path: Path):
    """Read a golden file: .json to values, .npz to a dict of arrays."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    with np.load(path) as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture(scope="session")
def golden():
    """Read a golden file of Fish Speech 1.5 by name."""
    return lambda name: read_golden(GOLDEN / name)


@pytest.fixture(scope="session")
def s1_golden():
    """Read a golden file of OpenAudio S1-mini by name."""
    return lambda name: read_golden(S1_GOLDEN / name)


@pytest.fixture(scope="session")
def piper_golden():
    """Read a golden file of Piper by name."""
    return lambda name: read_golden(PIPER_GOLDEN / name)


@pytest.fixture(scope="session")
def small_piper_config() -> dict:
    """`model.*` values of a Piper generator that takes milliseconds; its discriminators are the real ones."""
    return {
        "hidden_channels": 32,
        "inter_channels": 32,
        "filter_channels": 64,
        "n_layers": 2,
        "upsample_initial_channel": 32,
        "resblock_kernel_sizes": (3,),
        "resblock_dilation_sizes": ((1, 2),),
    }


@pytest.fixture(scope="session")
def s1_golden_folder() -> Path:
    """Where the golden answers of S1-mini lie."""
    return S1_GOLDEN


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Where the golden answers lie."""
    return GOLDEN


@pytest.fixture(scope="session")
def tokenizer():
    """The golden synthetic tokenizer."""
    from fish_speech.text import Tokenizer

    return Tokenizer(GOLDEN / "tokenizer" / "tokenizer.tiktoken")


@pytest.fixture(scope="session")
def s1_tokenizer():
    """The golden synthetic tokenizer of S1-mini."""
    from fish_speech.text import Tokenizer

    return Tokenizer(S1_GOLDEN / "tokenizer")


def write_clips(folder: Path, speakers: dict[str, int], codebooks: int = 3) -> Path:
    """Write clips of `codebooks` x (3 + number % 7) codes with transcripts into folder/speaker."""
    for speaker, count in speakers.items():
        (folder / speaker).mkdir(parents=True)
        for number in range(count):
            codes = (np.arange(codebooks * (3 + number % 7)) * 31 + number).reshape(codebooks, -1) % 1000
            np.save(folder / speaker / f"{number:04d}.npy", codes.astype(np.int32))
            (folder / speaker / f"{number:04d}.lab").write_text(f"{speaker} says {number}.\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def make_clips():
    """`write_clips`, for tests that take it as a fixture."""
    return write_clips


@pytest.fixture(scope="session")
def fill():
    """Fill a module's parameters by the golden rule, in place; never its buffers."""

    def fill_module(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
        module.load_state_dict(fill_state_dict(dict(module.named_parameters()), seed), strict=False)
        return module

    return fill_module


@pytest.fixture()
def golden_dual_ar(golden, fill):
    """Build a golden tiny DualAR ('base' or 'alt'), optionally with LoRA, filled by the rule, in eval mode."""
    from fish_speech.models import DualAR, DualARConfig, LoraConfig, install_lora

    def build(name: str = "base", lora: dict | None = None, **changes) -> DualAR:
        manifest = golden("manifest.json")["llama"]
        given = {**manifest["configs"][name]["given"], **changes}
        model = DualAR(DualARConfig.from_mapping(given), manifest["semantic_begin_id"])
        if lora:
            install_lora(model, LoraConfig(**lora))
        return fill(model).eval()

    return build


@pytest.fixture()
def s1_golden_dual_ar(s1_golden, fill):
    """Build a golden tiny S1 model ('A' or 'B'), optionally with LoRA, filled by the rule, in eval mode.

    `scale_codebook_embeddings=False` gives the released system's training path (see the golden README).
    """
    from fish_speech.models import DualAR, DualARConfig, LoraConfig, install_lora

    def build(name: str = "A", lora: dict | None = None, **changes) -> DualAR:
        manifest = s1_golden("manifest.json")
        given = {**manifest["models"][f"llama_{name}"]["config"], **changes}
        ids = manifest["tokenizer"]
        model = DualAR(DualARConfig.from_mapping(given), ids["semantic_begin_id"], ids["semantic_end_id"])
        if lora:
            install_lora(model, LoraConfig(**lora))
        return fill(model, manifest["seed"]).eval()

    return build


SMALL_CODEC = {
    "spec_transform": {"sample_rate": 44100, "n_mels": 20, "n_fft": 2048, "hop_length": 512, "win_length": 2048},
    "backbone": {"input_channels": 20, "depths": [1, 1], "dims": [16, 32], "drop_path_rate": 0.0, "kernel_size": 7},
    "quantizer": {"input_dim": 32, "n_groups": 8, "levels": [8, 5, 5, 5], "downsample_factor": [2, 2]},
    "head": {
        "hop_length": 512,
        "upsample_rates": [8, 8, 8],
        "upsample_kernel_sizes": [16, 16, 16],
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3]],
        "num_mels": 32,
        "upsample_initial_channel": 16,
        "pre_conv_kernel_size": 7,
        "post_conv_kernel_size": 7,
    },
}
SMALL_MODEL = {
    "model_type": "dual_ar", "vocab_size": 1412, "n_layer": 2, "n_head": 4, "dim": 32, "n_local_heads": 2,
    "intermediate_size": 64, "rope_base": 10000.0, "norm_eps": 1e-6, "max_seq_len": 4096, "dropout": 0.1,
    "tie_word_embeddings": False, "codebook_size": 1024, "num_codebooks": 8, "n_fast_layer": 1,
}  # fmt: skip
CODEC_FILE = "firefly-gan-vq-fsq-8x1024-21hz-generator.pth"


def write_model_folder(folder: Path, dtype: torch.dtype = torch.float32, seed: int = 0, **changes) -> Path:
    """Write a small checkpoint folder in the published format: random weights, synthetic tokenizer, small codec."""
    import yaml

    from fish_speech.models import DualAR, DualARConfig, FireflyCodec, FireflyConfig
    from fish_speech.text import Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    config = DualARConfig.from_mapping({**SMALL_MODEL, **changes})
    tokenizer = Tokenizer(GOLDEN / "tokenizer" / "tokenizer.tiktoken")
    model = DualAR(config, tokenizer.semantic_begin_id)
    model.reset_parameters(torch.Generator().manual_seed(seed))
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    torch.save({name: tensor.to(dtype) for name, tensor in model.state_dict().items()}, folder / "model.pth")
    tokenizer.save(folder)
    torch.manual_seed(seed)
    codec = FireflyCodec(FireflyConfig.from_mapping(SMALL_CODEC))
    for block in codec.modules():  # a fresh codec passes almost nothing through its blocks
        if hasattr(block, "gamma"):
            torch.nn.init.constant_(block.gamma, 0.5)
    torch.save(codec.state_dict(), folder / CODEC_FILE)
    (folder / CODEC_FILE).with_suffix(".yaml").write_text(yaml.safe_dump(SMALL_CODEC), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def small_base(tmp_path_factory) -> Path:
    """A small base model folder; read only."""
    return write_model_folder(tmp_path_factory.mktemp("base") / "fish-small")


# As the files of OpenAudio S1-mini, all sizes different. The heads are not dim / n_head wide, and a few rows of the
# vocabulary are nobody's, as the real ones.
SMALL_S1_MODEL = {
    "model_type": "dual_ar", "vocab_size": 1472, "n_layer": 2, "n_head": 4, "n_local_heads": 2, "head_dim": 12,
    "dim": 32, "intermediate_size": 72, "rope_base": 1000000, "norm_eps": 1e-6, "max_seq_len": 4096, "dropout": 0.0,
    "tie_word_embeddings": False, "attention_qkv_bias": False, "attention_o_bias": False, "attention_qk_norm": True,
    "codebook_size": 1100, "num_codebooks": 10, "use_gradient_checkpointing": True, "initializer_range": 0.03125,
    "is_reward_model": False, "scale_codebook_embeddings": True, "n_fast_layer": 1, "fast_dim": 24, "fast_n_head": 2,
    "fast_n_local_heads": 1, "fast_head_dim": 20, "fast_intermediate_size": 56, "fast_attention_qkv_bias": False,
    "fast_attention_qk_norm": False, "fast_attention_o_bias": False,
}  # fmt: skip

_WINDOWED = {
    "block_size": 64, "n_local_heads": -1, "rope_base": 10000, "norm_eps": 1e-5, "dropout": 0.1,
    "attention_dropout": 0.1, "channels_first": True,
}  # fmt: skip
_AROUND = {**_WINDOWED, "window": 12, "n_layer": 1, "n_head": 2, "dim": 64, "intermediate_size": 80, "head_dim": 32}
SMALL_S1_CODEC = {
    "architecture": "modded_dac",
    "sample_rate": 32000,
    "encoder_dim": 4,
    "encoder_rates": [2, 4, 5, 8],
    "decoder_dim": 48,
    "decoder_rates": [8, 5, 4, 2],
    "encoder_transformer_layers": [0, 0, 0, 1],
    "decoder_transformer_layers": [1, 0, 0, 0],
    "transformer_general_config": {**_WINDOWED, "head_dim": 16},
    "quantizer": {
        "input_dim": 64,
        "n_codebooks": 9,
        "codebook_size": 1024,
        "semantic_codebook_size": 1100,
        "codebook_dim": 8,
        "quantizer_dropout": 0.5,
        "downsample_factor": [2, 2],
        "pre_module": _AROUND,
        "post_module": _AROUND,
    },
}
S1_RATE, S1_SAMPLES_PER_FRAME = 32000, 1280  # of that codec: 2 * 4 * 5 * 8 samples, 4 of those a frame
# Tables that the published codec.pth holds beside its weights: names, rows, and channels of a head.
_S1_TABLES = {"encoder.block.4.block.5": 16, "quantizer.pre_module": 32, "quantizer.post_module": 32}


def write_s1_codec(folder: Path, seed: int = 0) -> Path:
    """Write codec.pth and codec.yaml of a small codec of S1-mini, as they are published; return the weights' path."""
    import yaml

    from fish_speech.models.dac import DacCodec, DacConfig

    codec = DacCodec(DacConfig.from_mapping(SMALL_S1_CODEC))
    weights = fill_state_dict(dict(codec.named_parameters()), seed)
    weights["decoder.model.6.conv.parametrizations.weight.original0"] *= 0.01  # else its tanh saturates
    rows = _WINDOWED["block_size"]
    for name, head_dim in _S1_TABLES.items():
        weights[f"{name}.freqs_cis"] = torch.full((rows, head_dim // 2, 2), torch.nan, dtype=torch.bfloat16)  # unused
        weights[f"{name}.causal_mask"] = torch.ones(rows, rows).tril().bool()
    torch.save({name: tensor.detach().clone() for name, tensor in weights.items()}, folder / "codec.pth")
    (folder / "codec.yaml").write_text(yaml.safe_dump(SMALL_S1_CODEC), encoding="utf-8")
    return folder / "codec.pth"


def write_s1_folder(folder: Path, dtype: torch.dtype = torch.bfloat16, seed: int = 0, **changes) -> Path:
    """Write a small S1-mini folder as it is published, with a codec whose codes its model knows."""
    write_s1_model(folder, dtype, seed, **changes)
    write_s1_codec(folder, seed)
    return folder


@pytest.fixture(scope="session")
def small_s1_base(tmp_path_factory) -> Path:
    """A small base of S1-mini; read only."""
    return write_s1_folder(tmp_path_factory.mktemp("s1_base") / "s1-small")


def write_s1_model(folder: Path, dtype: torch.dtype = torch.bfloat16, seed: int = 0, **changes) -> Path:
    """Write a small S1-mini model as it is published, without its codec: random weights, the golden tokenizer.

    The config and the tokenizer's files are not written by this package but as the published ones are; like the real
    model.pth this one holds an audio projector that no model has a place for.
    """
    from fish_speech.models import DualAR, DualARConfig

    folder.mkdir(parents=True, exist_ok=True)
    config = {**SMALL_S1_MODEL, **changes}
    (folder / "config.json").write_text(json.dumps(config, indent=4, sort_keys=True), encoding="utf-8")
    for path in sorted((S1_GOLDEN / "tokenizer").iterdir()):
        shutil.copyfile(path, folder / path.name)
    model = DualAR(DualARConfig.from_mapping(config), 335, 1434)  # the golden tokenizer's semantic ids
    model.reset_parameters(torch.Generator().manual_seed(seed))
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    torch.save({**state, "audio_projector.weight": torch.zeros(3, 5, dtype=dtype)}, folder / "model.pth")
    return folder
