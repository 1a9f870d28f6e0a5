"""The ONNX graph of a voice: traced from torch, with the names, types and axes that every Piper client knows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fish_speech.errors import UserError
from fish_speech.extras import require

if TYPE_CHECKING:
    from .models.synthesizer import Synthesizer

OPSET = 15
INPUTS = ("input", "input_lengths", "scales", "sid")  # the last with several speakers only
AXES = {
    "input": {0: "batch_size", 1: "phonemes"},
    "input_lengths": {0: "batch_size"},
    "output": {0: "batch", 2: "time"},
}
TRACED_IDS = 50  # as many as in published voices; what is traced with holds for any number
TOLERANCE = 1e-5  # between torch and onnxruntime, of samples in [-1, 1]; measured: 4e-7
QUIET = (0.0, 1.0, 0.0)  # scales without noise: noise_scale, length_scale, noise_w
_CHECKED = (3, 11, 50, 127)  # ids; 3 is a sentence without phonemes
_NUDGE = 1e-4  # relative change of the durations that must not change their whole numbers in a check
_TRIES = 50
_MOST_FRAMES = 8192  # of a sentence in a check, over a minute: a voice that asks for more has learned too little
_SLOWER = 1.37  # length_scale of the later tries


class SpokenVoice(nn.Module):
    """A generator as clients call it. It can no longer be trained: its decoder's norms are folded."""

    def __init__(self, generator: Synthesizer):
        super().__init__()
        self.generator = generator
        generator.dec.remove_weight_norm()
        self.eval()  # all of it: the exporter puts every part back into the mode of the whole

    def forward(self, ids: Tensor, lengths: Tensor, scales: Tensor, sid: Tensor | None = None) -> Tensor:
        """Ids (batch, symbols), lengths (batch), scales (3): noise_scale, length_scale, noise_w -> (batch, 1, 1, samples)."""
        said = self.generator.infer(ids, lengths, sid, scales[0], scales[1], scales[2])
        return said.wave.unsqueeze(1)


def write_graph(voice: SpokenVoice, path: Path) -> None:
    """Trace the voice into an .onnx. Raises UserError for a voice that would speak without end."""
    require("onnx", "the export of a Piper voice", "piper")
    config = voice.generator.config
    inputs: list[Tensor] = [
        torch.arange(TRACED_IDS).remainder(config.num_symbols)[None],
        torch.tensor([TRACED_IDS]),
        torch.tensor((0.667, 1.0, 0.8)),
    ]
    if config.num_speakers > 1:
        inputs.append(torch.zeros(1, dtype=torch.long))
    if not float(_frames(voice, inputs[0], inputs[3] if len(inputs) > 3 else None, QUIET).sum()) <= _MOST_FRAMES:
        raise _endless(TRACED_IDS)  # tracing speaks: it would take all memory
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)  # of this exporter: the newer one cannot trace the spline
        warnings.filterwarnings("ignore", message=".*(?:Constant folding|constant folding).*")
        torch.onnx.export(
            voice,
            tuple(inputs),
            str(path),
            opset_version=OPSET,
            input_names=list(INPUTS[: len(inputs)]),
            output_names=["output"],
            dynamic_axes=AXES,
            dynamo=False,
        )


def check_graph(path: Path, has_speakers: bool) -> None:
    """Raise RuntimeError unless the .onnx has the inputs, the output and the nodes that clients and their tools rely on."""
    import onnx

    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    ceils = sum(node.op_type == "Ceil" for node in model.graph.node)
    if inputs != list(INPUTS if has_speakers else INPUTS[:-1]) or [value.name for value in model.graph.output] != [
        "output"
    ]:
        raise RuntimeError(f"the .onnx has the inputs {inputs}")
    if ceils != 1:  # tools that time phonemes find the durations by it
        raise RuntimeError(f"the .onnx rounds up in {ceils} places, not only where it makes durations whole")
    if model.metadata_props or model.opset_import[0].version != OPSET:
        raise RuntimeError("the .onnx has metadata, or another opset")


def largest_difference(voice: SpokenVoice, path: Path) -> float:
    """Speak without noise by torch and by the .onnx, sentences of several lengths and speakers; compare the samples.

    Raises RuntimeError if they differ by more than TOLERANCE, or in length.
    """
    from .speech.session import open_session, run_session

    session = open_session(path)
    config = voice.generator.config
    rng = torch.Generator().manual_seed(0)
    largest = 0.0
    for number, count in enumerate(_CHECKED):
        speaker = number % config.num_speakers if config.num_speakers > 1 else None
        ids, scales, expected = _steady_sentence(voice, count, speaker, rng)
        said = torch.from_numpy(run_session(session, ids, scales, speaker))
        if len(said) != len(expected):
            raise RuntimeError(f"of {count} ids the .onnx makes {len(said)} samples, torch {len(expected)}")
        largest = max(largest, float((said - expected).abs().max()))
    if not largest <= TOLERANCE:
        raise RuntimeError(
            f"the samples of the .onnx differ from torch's by {largest:.3g}; at most {TOLERANCE} is right"
        )
    return largest


def _steady_sentence(
    voice: SpokenVoice, count: int, speaker: int | None, rng: torch.Generator
) -> tuple[list[int], tuple[float, float, float], Tensor]:
    """Draw ids whose durations no rounding of floats can change by a frame; return them, the scales, torch's samples.

    A voice that has learnt next to nothing gives every id one frame, all but exactly: then said a little slower.
    """
    num_symbols = voice.generator.config.num_symbols
    endless = 0
    for number in range(_TRIES):
        scales = QUIET if number < _TRIES // 2 else (QUIET[0], _SLOWER, QUIET[2])
        ids = torch.randint(num_symbols, (1, count), generator=rng)
        sid = None if speaker is None else torch.tensor([speaker])
        frames = _frames(voice, ids, sid, scales)
        if not float(frames.sum()) <= _MOST_FRAMES:
            endless += 1
        elif torch.equal(torch.ceil(frames * (1 - _NUDGE)), torch.ceil(frames * (1 + _NUDGE))):
            with torch.no_grad():
                said = voice.generator.infer(ids, torch.tensor([count]), sid, *scales)
            return ids[0].tolist(), scales, said.wave.reshape(-1)
    if endless:
        raise _endless(count)
    raise RuntimeError(f"the durations are whole numbers in {_TRIES} of {_TRIES} sentences: nothing can be compared")


def _frames(voice: SpokenVoice, ids: Tensor, sid: Tensor | None, scales: tuple[float, float, float]) -> Tensor:
    """How long the voice makes each of `ids` (1, count), in frames before they are made whole; little is spoken."""
    with torch.no_grad():
        said = voice.generator.infer(ids, torch.tensor([ids.size(1)]), sid, *scales, max_frames=1)
    return torch.exp(said.logw) * scales[1]


def _endless(count: int) -> UserError:
    return UserError(
        "the voice makes endless sound",
        f"it asks for more than {_MOST_FRAMES} frames for {count} symbols",
        "train it longer, or export an earlier checkpoint",
    )
