"""Real speech, and whisper models of random weights in the formats that are published: what they write is garbage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fish_speech.audio import read_audio
from fish_speech.recognition import resample

from ..conftest import REPO

DIMS = {
    "n_mels": 80,
    "n_audio_ctx": 1500,
    "n_audio_state": 8,
    "n_audio_head": 4,
    "n_audio_layer": 1,
    "n_vocab": 51865,
    "n_text_ctx": 16,  # 8 tokens are written for a window
    "n_text_state": 8,
    "n_text_head": 2,
    "n_text_layer": 2,
}


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """5.5 s of a real voice, (samples,) at 16 kHz."""
    return resample(*read_audio(REPO / "samples" / "allison" / "agent-alreadyon.flac"))


def random_whisper(dims: dict[str, int], seed: int = 0) -> dict:
    """A checkpoint of random weights, as openai-whisper's files hold it."""
    import torch

    model = pytest.importorskip("whisper.model")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = model.Whisper(model.ModelDimensions(**dims)).state_dict()
        for name, tensor in weights.items():
            if name.endswith("positional_embedding") and name.startswith("decoder"):  # made empty, without values
                tensor.normal_()
    return {"dims": dict(dims), "model_state_dict": weights}


@pytest.fixture(scope="session")
def whisper_file(tmp_path_factory) -> Path:
    """A multilingual model of random weights, 1.7 MB."""
    import torch

    path = tmp_path_factory.mktemp("whisper") / "random.pt"
    torch.save(random_whisper(DIMS), path)
    return path


@pytest.fixture(scope="session")
def english_whisper_file(tmp_path_factory) -> Path:
    """A model for English only: one token fewer."""
    import torch

    path = tmp_path_factory.mktemp("whisper") / "random-english.pt"
    torch.save(random_whisper({**DIMS, "n_vocab": 51864}), path)
    return path


@pytest.fixture(scope="session")
def faster_folder(tmp_path_factory) -> Path:
    """The same kind of model in the format of CTranslate2, converted here from openai-whisper's."""
    pytest.importorskip("faster_whisper", reason="the extra faster-whisper is not installed")
    folder = tmp_path_factory.mktemp("faster") / "random"
    dims = {**DIMS, "n_text_ctx": 448}  # the package takes that for granted
    weights = {name: tensor.numpy() for name, tensor in random_whisper(dims)["model_state_dict"].items()}
    make_it_brief(weights)
    convert(weights, dims, folder)
    return folder


def make_it_brief(weights: dict[str, np.ndarray]) -> None:
    """Make the token that ends a text likely, so that 448 tokens are not written for each window."""
    end = 50257
    weights["decoder.token_embedding.weight"][end] = 0
    weights["decoder.token_embedding.weight"][end, 0] = 3
    weights["decoder.ln.bias"][0] = 1.2


def convert(weights: dict[str, np.ndarray], dims: dict[str, int], folder: Path) -> None:
    """Write the folder that faster-whisper reads: model.bin, config.json, vocabulary.json, tokenizer.json."""
    from ctranslate2.specs.whisper_spec import WhisperSpec
    from whisper.tokenizer import get_tokenizer

    layers, heads = (dims["n_audio_layer"], dims["n_audio_head"]), (dims["n_text_layer"], dims["n_text_head"])
    spec = WhisperSpec(*layers, *heads)
    encoder, decoder = spec.encoder, spec.decoder
    for name in ("conv1", "conv2"):
        linear(getattr(encoder, name), weights, f"encoder.{name}")
    encoder.position_encodings.encodings = weights["encoder.positional_embedding"]
    norm(encoder.layer_norm, weights, "encoder.ln_post")
    decoder.embeddings.weight = weights["decoder.token_embedding.weight"]
    decoder.projection.weight = weights["decoder.token_embedding.weight"]
    decoder.position_encodings.encodings = weights["decoder.positional_embedding"]
    norm(decoder.layer_norm, weights, "decoder.ln")
    for side, part in (("encoder", encoder), ("decoder", decoder)):
        for number, layer in enumerate(part.layer):
            name = f"{side}.blocks.{number}"
            attention(layer.self_attention, weights, name, "attn")
            if side == "decoder":
                attention(layer.attention, weights, name, "cross_attn")
            linear(layer.ffn.linear_0, weights, f"{name}.mlp.0")
            linear(layer.ffn.linear_1, weights, f"{name}.mlp.2")
            norm(layer.ffn.layer_norm, weights, f"{name}.mlp_ln")
    tokenizer = get_tokenizer(multilingual=True, num_languages=99)
    tokens = write_tokenizer(tokenizer, folder / "tokenizer.json")
    spec.register_vocabulary(tokens)
    spec.config.lang_ids = list(tokenizer.all_language_tokens)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [220, tokenizer.eot]
    spec.config.alignment_heads = [(1, 0), (1, 1)]
    spec.validate()
    spec.save(str(folder))


def linear(spec, weights, name):
    spec.weight, spec.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]


def norm(spec, weights, name):
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


def attention(spec, weights, name, kind):
    """CTranslate2 keeps query, key and value in one matrix, or the query apart where it looks at the sound."""
    norm(spec.layer_norm, weights, f"{name}.{kind}_ln")
    parts = [(weights[f"{name}.{kind}.{p}.weight"], weights.get(f"{name}.{kind}.{p}.bias")) for p in QKV]
    parts = [(weight, np.zeros(len(weight), np.float32) if bias is None else bias) for weight, bias in parts]
    groups = [parts] if kind == "attn" else [parts[:1], parts[1:]]
    for target, group in zip(spec.linear, groups):
        target.weight = np.concatenate([weight for weight, _ in group])
        target.bias = np.concatenate([bias for _, bias in group])
    linear(spec.linear[len(groups)], weights, f"{name}.{kind}.out")


QKV = ("query", "key", "value")


def write_tokenizer(tokenizer, path: Path) -> list[str]:
    """Write whisper's tokens as a tokenizer.json without merges (text is only read back); return all of them in order."""
    import tokenizers

    visible = bytes_to_letters()
    ranks = tokenizer.encoding._mergeable_ranks
    tokens = {"".join(visible[byte] for byte in key): rank for key, rank in ranks.items()}
    special = sorted(tokenizer.special_tokens, key=tokenizer.special_tokens.get)
    model = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=tokens, merges=[]))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    model.add_special_tokens(special)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(str(path))
    ids = {**tokens, **tokenizer.special_tokens}
    assert json.loads(path.read_text(encoding="utf-8"))["added_tokens"][0]["id"] == min(
        tokenizer.special_tokens.values()
    )
    return sorted(ids, key=ids.get)


def bytes_to_letters() -> dict[int, str]:
    """GPT-2's letters for bytes: those that can be seen stand for themselves, others for what comes after 255."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
