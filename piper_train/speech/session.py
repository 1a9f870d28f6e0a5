"""Open an exported voice in onnxruntime, and find out before it speaks whether it is one and fits its config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fish_speech.errors import UserError

from .memory import is_out_of_memory, limit_memory, too_long

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from ..voice_config import VoiceConfig

QUIET = (0.0, 1.0, 0.0)  # scales without noise
MOST_THREADS = 8  # a sentence is too short for more to help
_TYPES = {"input": "tensor(int64)", "input_lengths": "tensor(int64)", "scales": "tensor(float)", "sid": "tensor(int64)"}


def open_session(
    path: Path, device: str = "auto", threads: int | None = None, seed: int | None = None
) -> InferenceSession:
    """Load the .onnx at `path`. The same `seed` gives the same noise, counted from here. Raises UserError.

    threads: of the CPU; None takes those this process may use, at most MOST_THREADS, or OMP_NUM_THREADS.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # sentences differ in length: a plan made for one is of no use to the next
    options.log_severity_level = 4  # what goes wrong is raised, and told once
    if limit_memory():
        options.add_session_config_entry("session.use_env_allocators", "1")
    providers = _providers(device, onnxruntime.get_available_providers())
    if seed is not None:
        onnxruntime.set_seed(seed % (1 << 31))  # read when the graph's random nodes are made, below
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # each kind of failure has a class of its own, which onnxruntime does not export
        raise UserError(
            f"{path} is not a model that onnxruntime can load",
            _first_line(error),
            "export the voice anew (python -m piper_train.export_onnx), or download it again",
        ) from None


def default_threads() -> int:
    """CPU threads for one voice."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        usable = os.cpu_count() or 1
    return max(1, min(usable, MOST_THREADS))


def _providers(device: str, available: list[str]) -> list[str]:
    if device == "mps":
        raise UserError("--device mps has no effect here", "a Piper voice runs on the CPU or on CUDA", "drop --device")
    if device == "cuda" and "CUDAExecutionProvider" not in available:
        raise UserError(
            "--device cuda asks for a device that is not available",
            f"this onnxruntime has {', '.join(available)}",
            "drop --device: the CPU is faster than real time; or pip install onnxruntime-gpu",
        )
    # A voice is small: auto stays on the CPU, where the first sentence needs no warming up.
    return ["CUDAExecutionProvider", "CPUExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]


def check_inputs(session: InferenceSession, config: VoiceConfig, path: Path) -> None:
    """Raise UserError unless the model's inputs and outputs are those of a Piper voice with that many speakers."""
    inputs = {value.name: value.type for value in session.get_inputs()}
    single = {name: kind for name, kind in _TYPES.items() if name != "sid"}
    if inputs not in (single, _TYPES) or [value.name for value in session.get_outputs()] != ["output"]:
        told = ", ".join(f"{name} {kind}" for name, kind in inputs.items()) or "none"
        raise UserError(
            f"{path} is not a Piper voice",
            f"its inputs are {told[:300]}; a voice has {', '.join(_TYPES)} (the last with several speakers)",
            "give an .onnx that python -m piper_train.export_onnx wrote, or a published Piper voice",
        )
    if ("sid" in inputs) != (config.num_speakers > 1):
        has = "several speakers" if "sid" in inputs else "one speaker"
        raise _misfit(path, f"the model has {has}, its config says {config.num_speakers}")


def check_fit(session: InferenceSession, config: VoiceConfig, path: Path) -> None:
    """Let the model say some ids and speakers, without noise; raise UserError if it has others than the config says.

    Takes a few hundredths of a second, which the first sentence then saves.
    """
    largest = max(max(ids, default=0) for ids in config.phoneme_id_map.values())
    speakers = [None] if config.num_speakers == 1 else [0, config.num_speakers - 1]
    for speaker in speakers:
        try:
            run_session(session, [0, largest, config.num_symbols - 1], QUIET, speaker)
        except IndexError as error:
            raise _misfit(path, f"the config has {config.num_symbols} symbols and {config.num_speakers} speakers, "
                          f"the model fewer: {_first_line(error)}") from None  # fmt: skip
    if session.get_providers()[0] != "CPUExecutionProvider":  # others do not notice an id that is not there
        return
    try:
        run_session(session, [0, config.num_symbols, 0], QUIET, speakers[0])
    except IndexError:  # as it should be
        return
    raise _misfit(path, f"the config has {config.num_symbols} symbols, the model more")


def run_session(
    session: InferenceSession, ids: list[int], scales: tuple[float, float, float], speaker: int | None
) -> np.ndarray:
    """Return what the model says for `ids`: float32 (samples,). scales: noise, length, noise of the durations.

    Raises IndexError for an id or speaker that the model does not have, UserError for a model that cannot say them.
    """
    feeds: dict[str, Any] = {
        "input": np.array([ids], np.int64),
        "input_lengths": np.array([len(ids)], np.int64),
        "scales": np.array(scales, np.float32),
    }
    if speaker is not None:
        feeds["sid"] = np.array([speaker], np.int64)
    try:
        sound = np.asarray(session.run(None, feeds)[0], np.float32).reshape(-1)
    except Exception as error:  # onnxruntime's classes say less than its words
        if is_out_of_memory(error):
            raise too_long(len(ids), scales[1]) from None
        if "running Gather node" in str(error):  # the look-up of ids and speakers
            raise IndexError(_first_line(error)) from None
        raise _broken(f"it breaks off: {_first_line(error)}") from None
    if not np.isfinite(sound).all():
        raise _broken("what it makes is no number")
    return sound


def _broken(why: str) -> UserError:
    return UserError("the voice cannot speak", why, "export it anew from another checkpoint: this training went wrong")


def _misfit(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} and {config_path(path).name} do not belong together",
        why,
        f"put the config of this voice at {config_path(path)}: the config.json of its training, or export it anew",
    )


def config_path(path: Path) -> Path:
    """Where the config of the voice at `path` lies: beside it."""
    return path.with_name(f"{path.name}.json")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
