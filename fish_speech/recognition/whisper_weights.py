"""Weights of openai-whisper: find them, check that a file is what it claims to be, and fetch them if that was asked for.

A file from anywhere is read without running code, and its sizes are checked before a model of that size is made.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import read_file, sha256
from ..errors import UserError, disk_full
from ..extras import require
from .languages import check_language

# In the order in which auto takes them: good enough to judge clean speech, and bearable on a CPU, come first.
WHISPER_MODELS = ("small", "base", "large-v3-turbo", "medium", "large-v3", "large-v2", "large-v1", "tiny")
_ALIASES = {"turbo": "large-v3-turbo", "large": "large-v3"}
_ENGLISH = ("tiny.en", "base.en", "small.en", "medium.en")
WHISPER_NAMES = tuple(sorted((*WHISPER_MODELS, *_ALIASES, *_ENGLISH)))
FETCHED_MODEL = "small"  # where none is named; 484 MB
INSTALL = "pip install openai-whisper"
SILENCE_S = 60.0  # a server that says nothing for so long is given up

_DIMS = (
    *("n_mels", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer"),
    *("n_vocab", "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer"),
)
_MELS, _AUDIO_FRAMES, _VOCABULARIES = (80, 128), 1500, (51864, 51865, 51866)  # of all models there are
_LARGEST = 1 << 16  # any dimension


def whisper_cache() -> Path:
    """Where openai-whisper keeps the weights that it downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"


def is_path(model: str) -> bool:
    """Whether --whisper-model means a file and not a name."""
    return (
        model.endswith(".pt")
        or "/" in model
        or os.sep in model
        or (model not in WHISPER_NAMES and Path(model).exists())
    )


def whisper_weights(model: str | None = None, language: str | None = None) -> Path | None:
    """The weights of `model`, a name or the path of a .pt file; without one, the best found. None if there are none.

    Models for English only are taken where `language` is "en", or by their own name.
    """
    if model is not None and is_path(model):
        return Path(model) if Path(model).is_file() else None
    names = (_ALIASES.get(model, model),) if model else WHISPER_MODELS
    suffixes = ("", ".en") if language == "en" else ("",)
    candidates = (whisper_cache() / f"{name}{suffix}.pt" for name in names for suffix in suffixes)
    return next((path for path in candidates if path.is_file()), None)


def find_weights(model: str | None, language: str | None) -> Path:
    """`whisper_weights`, or UserError that says where they should be."""
    check_name(model, language)
    weights = whisper_weights(model, language)
    if weights is not None:
        return weights
    if model is not None and is_path(model):
        raise UserError(f"there are no whisper weights at {model}", "there is no such file", "check the path")
    raise UserError(
        f"there are no whisper weights{f' called {model}' if model else ''} on this machine",
        f"looked for .pt files in {whisper_cache()}; nothing is downloaded unasked",
        "give --whisper-model PATH.pt, download a model with the whisper program, or use --asr pocketsphinx",
    )


def check_name(model: str | None, language: str | None) -> None:
    """Raise UserError if no whisper model is called so, or if it does not know the language."""
    if model is not None and not is_path(model) and model not in WHISPER_NAMES:
        raise UserError(
            f"there is no whisper model {model!r}",
            f"known: {', '.join(WHISPER_NAMES)}",
            "give one of these to --whisper-model, or the path of a .pt file",
        )
    if model is not None and Path(model).is_dir():
        raise UserError(f"{model} is a folder", "openai-whisper's weights are one .pt file", "use --asr faster-whisper")
    check_language(language, "" if model is None or is_path(model) else model)


def published_name(weights: Path) -> str | None:
    """The name under which openai-whisper published this file, judging by its place in the cache."""
    known = weights.parent == whisper_cache() and weights.stem in WHISPER_NAMES
    return weights.stem if known else None


def fetch_weights(model: str | None, language: str | None) -> Path:
    """Return weights that are there, or let openai-whisper download them into its cache; UserError if that fails."""
    check_name(model, language)
    if model is not None and is_path(model):
        return find_weights(model, language)
    from filelock import FileLock

    cache = whisper_cache()
    cache.mkdir(parents=True, exist_ok=True)
    name = _ALIASES.get(model or FETCHED_MODEL, model or FETCHED_MODEL)
    with FileLock(cache / f"{name}.lock"):  # worker processes: one of them downloads
        weights = whisper_weights(model, language)
        url = _url(name)
        if weights is not None and (weights.stem != name or sha256(weights) == _hash_of(url)):
            return weights
        whisper = require("whisper", "--asr whisper", fix=INSTALL)
        try:
            with _impatient():
                return Path(whisper._download(url, str(cache), False))  # load_model's own way to get a file
        except (OSError, RuntimeError, TypeError, http.client.HTTPException) as error:  # TypeError: no Content-Length
            if isinstance(error, OSError) and disk_full(error):
                raise
            raise UserError(
                f"cannot download the whisper model {name}",
                f"{url}: {error}",
                f"download that file by other means to {cache / f'{name}.pt'}, give --whisper-model PATH.pt, "
                "or use --asr pocketsphinx, which needs no network",
            ) from error


def check_published(weights: Path, name: str) -> None:
    """Raise UserError if a file in whisper's cache is not the one that was published under its name."""
    url = _url(name)
    if url and sha256(weights) != _hash_of(url):
        raise UserError(
            f"{weights} is damaged",
            f"its SHA-256 is not the published {_hash_of(url)[:16]}…: a download was cut off, or it is another model",
            f"delete it and download {url} again; a model of your own belongs elsewhere, for --whisper-model PATH.pt",
        )


def check_weights(path: Path) -> dict[str, int]:
    """Return the dimensions of a file in openai-whisper's format; UserError if it is none, or torn, or holds code."""
    content = read_file(path)
    problem = _problem(content, path.stat().st_size)
    if problem:
        raise UserError(
            f"{path} is no whisper model",
            problem,
            "give a .pt file as openai-whisper has them: {'dims': ..., 'model_state_dict': ...}",
        )
    return {name: int(content["dims"][name]) for name in _DIMS}


def _problem(content: Any, size: int) -> str:
    """Why this cannot be a model, in a line. What it says must be in the file before that much memory is taken."""
    import torch

    dims = content.get("dims") if isinstance(content, Mapping) else None
    weights = content.get("model_state_dict") if isinstance(content, Mapping) else None
    if not isinstance(dims, Mapping) or not isinstance(weights, Mapping):
        return "it has no dims and model_state_dict"
    if set(dims) != set(_DIMS) or not all(type(value) is int and 0 < value <= _LARGEST for value in dims.values()):
        return f"its dims are not whisper's: {str(dict(dims))[:200]}"
    if dims["n_mels"] not in _MELS or dims["n_audio_ctx"] != _AUDIO_FRAMES or dims["n_vocab"] not in _VOCABULARIES:
        return f"its mels, audio frames or vocabulary are not whisper's: {dict(dims)}"
    width = dims["n_audio_state"]
    if dims["n_text_state"] != width or width % dims["n_audio_head"] or width % dims["n_text_head"] or width < 4:
        return f"its states and heads do not fit together: {dict(dims)}"
    if not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        return "its model_state_dict holds more than tensors"
    if sum(tensor.numel() * tensor.element_size() for tensor in weights.values()) > size:
        return "its tensors say that they are larger than the file"
    for name, shape in _shapes(dims):
        if name not in weights or tuple(weights[name].shape) != shape:
            return f"{name} of shape {shape} is missing"
    return ""


def _shapes(dims: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors that decide how large the model is."""
    width = dims["n_audio_state"]
    yield "encoder.conv1.weight", (width, dims["n_mels"], 3)
    yield "encoder.positional_embedding", (dims["n_audio_ctx"], width)
    yield "decoder.positional_embedding", (dims["n_text_ctx"], width)
    yield "decoder.token_embedding.weight", (dims["n_vocab"], width)
    for part, layers in (("encoder", dims["n_audio_layer"]), ("decoder", dims["n_text_layer"])):
        for layer in range(layers):
            yield f"{part}.blocks.{layer}.mlp.0.weight", (4 * width, width)


def _url(name: str) -> str:
    whisper = require("whisper", "--asr whisper", fix=INSTALL)
    return getattr(whisper, "_MODELS", {}).get(name, "")


def _hash_of(url: str) -> str:
    return url.split("/")[-2] if url.count("/") > 1 else ""


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Whisper's download names no timeout of its own and would wait for a silent server for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
