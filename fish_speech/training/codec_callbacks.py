"""What a codec training does beside its steps: report, keep sounds to listen to, export the codec."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback

from ..checkpoint import save_state_dict
from ..files import write_text

log = logging.getLogger(__name__)


class CodecProgress(Callback):
    """A line of facts every few steps, and one for each validation."""

    def __init__(self, every_n_steps: int = 10):
        self.every_n_steps = max(1, every_n_steps)
        self._last = (0, 0.0)  # step, seconds

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = (trainer.global_step, time.monotonic())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if (
            not trainer.is_global_zero
            or step <= self._last[0]
            or not (step % self.every_n_steps == 0 or step == trainer.max_steps)
        ):
            return
        now = time.monotonic()
        steps, seconds = step - self._last[0], max(now - self._last[1], 1e-9)
        heard = steps * batch.size(0) * batch.size(-1) / pl_module.generator.sample_rate
        values = {name.removeprefix("train/"): float(v) for name, v in trainer.callback_metrics.items()}
        shown = ("mel", "stft", "adversarial", "feature", "discriminator", "codes_used", "perplexity")
        facts = "  ".join(f"{name} {values[name]:.3g}" for name in shown if name in values)
        log.info(
            "step %d/%d  loss %.3f  %s  %.2f steps/s  %.0f x real time",
            step, trainer.max_steps, values.get("loss", float("nan")), facts, steps / seconds, heard / seconds,
        )  # fmt: skip
        self._last = (step, now)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        if "val/mel_l1" in metrics and trainer.is_global_zero:
            log.info("step %d  held-out clips: mel L1 %.4f", trainer.global_step, metrics["val/mel_l1"])
        self._last = (trainer.global_step, time.monotonic())


class AudioSamples(Callback):
    """Puts held-out clips and their reconstructions into TensorBoard."""

    def __init__(self, clips: int = 4):
        self.clips = clips

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        writer = getattr(trainer.logger, "experiment", None)
        if writer is None or not hasattr(writer, "add_audio") or not trainer.is_global_zero:
            return
        codec = pl_module.average.module
        for number in range(min(self.clips, len(data.held_out))):
            clip = data.held_out_clip(number).to(pl_module.device)
            made = codec(clip)[0].float()
            for name, sound in (("original", clip), ("reconstruction", made)):
                writer.add_audio(f"{name}/{number}", sound[0].cpu(), trainer.global_step, codec.sample_rate)


class ExportCodec(Callback):
    """Writes the averaged codec as `codec.pth` with its `codec.yaml` whenever a checkpoint could be: validation and end.

    dtype: float32, or float16 for half the size; loading makes float32 of both
    """

    def __init__(self, folder: str, dtype: str = "float32"):
        self.folder, self.dtype = Path(folder), getattr(torch, dtype)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.export(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.export(trainer, pl_module)

    def export(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write both files."""
        if not trainer.is_global_zero:
            return
        codec = pl_module.average.module
        state = {name: tensor.detach().to("cpu", self.dtype) for name, tensor in codec.state_dict().items()}
        save_state_dict(self.folder / "codec.pth", state)
        text = yaml.safe_dump(_plain(codec.config.to_mapping()), sort_keys=False)
        write_text(self.folder / "codec.yaml", text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (tuple, list)) else value
