"""The model speaks while it is trained: heard, measured, and the training none the wiser."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fish_speech.checkpoint_metrics import read_metrics
from fish_speech.models import LoraConfig, load_dual_ar
from fish_speech.synthesis.sampling import SamplingConfig
from fish_speech.synthesis.speak import Speaker
from fish_speech.training import listening, spoken
from fish_speech.training.history import History
from fish_speech.training.keeping import StepCheckpoint
from fish_speech.training.listening import Listener, Sample
from fish_speech.training.spoken import ENGLISH, SpokenSamples, random_state_kept, sample_texts, speaking

from .toy_run import Toy, fit

ALLISON = Path(__file__).parents[2] / "samples" / "allison"


class Voice(Toy):
    """Trains the adapters of a real small model, whose loss needs its dropout and its rotary tables."""

    def __init__(self, base: Path):
        super().__init__(lambda step: 1.0)
        self.model = load_dual_ar(base, lora=LoraConfig(r=4, lora_dropout=0.2)).train()
        self.model.set_dropout(0.1)
        self.model.layers[0].eval()  # a mode that no blanket train() would give back

    def training_step(self, batch, batch_idx) -> None:
        config = self.model.config
        rng = torch.Generator().manual_seed(batch_idx)
        codes = torch.randint(0, config.codebook_size, (1, config.num_codebooks, 16), generator=rng)
        out = self.model(torch.cat([codes[:, :1] + self.model.semantic_begin_id, codes], dim=1))
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = out.codebook_logits.square().mean()
        self.manual_backward(loss)
        optimizer.step()
        self.log("train/loss", loss.detach())

    def on_validation_model_eval(self) -> None:
        self.model.eval()

    def on_validation_model_train(self) -> None:
        self.model.train()
        self.model.layers[0].eval()

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=10.0)


def samples_of(folder: Path, base: Path, **options) -> SpokenSamples:
    settings = {"every_n_steps": 2, "texts": ["Good morning.", "And good night."], "max_seconds": 0.2, **options}
    return SpokenSamples(folder / "samples", base, **settings)


def train(folder: Path, base: Path, *callbacks: L.Callback, steps: int = 5, **options) -> Voice:
    torch.manual_seed(1)
    voice = Voice(base)
    torch.manual_seed(2)  # dropout is drawn from the global state on purpose: what changes it shows
    fit(folder, steps, lambda step: 1.0, callbacks, module=voice, **options)
    return voice


def state(voice: Voice) -> list[torch.Tensor]:
    return [p.detach().clone() for p in voice.parameters()]


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_base):
    """A folder with a training that spoke, and its module."""
    folder = tmp_path_factory.mktemp("spoken")
    logger = TensorBoardLogger(folder / "logs", name=None)
    keeping, history = StepCheckpoint(folder, 2, keep_newest=9), History(folder / "history.csv")
    return folder, train(folder, small_base, samples_of(folder, small_base), history, keeping, logger=[logger])


def test_samples_of_the_start_and_every_n_steps_are_files_with_sound(run):
    folder, _ = run
    names = [f"step_{step:09d}_{number}.wav" for step in (0, 2, 4) for number in (1, 2)]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == names
    for name in names:
        sound, rate = soundfile.read(folder / "samples" / name)
        assert rate == 44100 and 0 < len(sound) <= 0.25 * rate and np.abs(sound).max() > 0


def test_samples_and_measures_are_in_tensorboard(run):
    events = EventAccumulator(str(run[0] / "logs" / "version_0")).Reload()
    assert {"samples/1", "samples/2"} <= set(events.Tags()["audio"])
    assert [event.step for event in events.Audio("samples/2")] == [0, 2, 4]
    assert [event.step for event in events.Scalars("val/wer")] == [0, 2, 4]
    assert any(tag.startswith("samples/1") for tag in events.Tags()["tensors"])


def test_what_was_measured_is_kept_with_the_checkpoint_and_the_row_of_its_step_alone(run):
    folder, _ = run
    assert {step: "val/wer" in read_metrics(folder / f"step_{step:09d}.ckpt") for step in (2, 4, 5)} == {
        2: True, 4: True, 5: False,
    }  # fmt: skip
    lines = [line.split(",") for line in (folder / "history.csv").read_text(encoding="utf-8").splitlines()[1:]]
    assert [(line[0], line[4] != "") for line in lines] == [("0", True), ("2", True), ("4", True), ("5", False)]


def test_training_is_the_same_to_the_bit_with_samples_and_without(run, tmp_path, small_base):
    without = train(tmp_path, small_base, StepCheckpoint(tmp_path, 2))
    for one, other in zip(state(run[1]), state(without), strict=True):
        assert torch.equal(one, other)


def test_samples_change_with_the_weights(run):
    first, last = (soundfile.read(run[0] / "samples" / f"step_{step:09d}_1.wav")[0] for step in (0, 4))
    assert len(first) != len(last) or not np.array_equal(first, last)


def test_a_resumed_run_does_not_speak_at_its_start(run, tmp_path, small_base, caplog):
    folder, _ = run
    samples = samples_of(tmp_path, small_base)
    with caplog.at_level(logging.INFO, "fish_speech"):
        train(folder, small_base, samples, StepCheckpoint(folder, 2, keep_newest=9), steps=7, resume=4)
    assert sorted({path.name[:14] for path in (tmp_path / "samples").iterdir()}) == ["step_000000006"]


def test_without_held_out_clips_samples_are_spoken_all_the_same(tmp_path, small_base):
    torch.manual_seed(1)
    fit(tmp_path, 3, None, [samples_of(tmp_path, small_base)], module=Voice(small_base))
    assert len(list((tmp_path / "samples").iterdir())) == 4


@pytest.mark.parametrize("options", [{"every_n_steps": None}, {"texts": []}])
def test_samples_can_be_switched_off(tmp_path, small_base, options, caplog):
    with caplog.at_level(logging.INFO, "fish_speech"):
        train(tmp_path, small_base, samples_of(tmp_path, small_base, **options), steps=2)
    assert not (tmp_path / "samples").exists()
    assert [record for record in caplog.records if record.name.startswith("fish_speech")] == []


def test_a_missing_codec_is_one_line_and_training_goes_on(tmp_path, small_base, caplog):
    with caplog.at_level(logging.WARNING, "fish_speech"):
        voice = train(tmp_path, small_base, samples_of(tmp_path, small_base, codec=tmp_path / "no.pth"))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and "no samples are spoken" in lines[0] and "no.pth" in lines[0]
    assert voice.trainer.global_step == 5


def test_a_failure_to_speak_is_one_line_each_time_and_leaves_the_modes_as_they_were(
    tmp_path, small_base, caplog, monkeypatch
):
    def fail(*anything, **more):
        raise RuntimeError("CUDA error:\n  device lost")

    monkeypatch.setattr("fish_speech.synthesis.speak.Speaker.codes", fail)
    with caplog.at_level(logging.WARNING, "fish_speech"):
        voice = train(tmp_path, small_base, samples_of(tmp_path, small_base))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3 and all("CUDA error: device lost" in line for line in lines)
    assert voice.model.training and not voice.model.layers[0].training


def test_a_model_that_never_ends_is_cut(tmp_path, small_base):
    samples = samples_of(tmp_path, small_base, texts=["word " * 60], max_seconds=0.5)
    train(tmp_path, small_base, samples, steps=1)
    sound, rate = soundfile.read(tmp_path / "samples" / "step_000000000_1.wav")
    assert len(sound) <= 0.55 * rate


def test_speaking_leaves_nothing_on_the_model(small_base):
    voice = Voice(small_base)
    modes = [module.training for module in voice.model.modules()]
    with speaking(voice.model), torch.inference_mode():
        assert not any(module.training for module in voice.model.modules())
        slow, _ = voice.model.new_caches(4000)
        grid = torch.zeros(1, 1 + voice.model.config.num_codebooks, 3000, dtype=torch.int64)
        voice.model.step(grid, slow)  # makes a longer table of angles
    assert [module.training for module in voice.model.modules()] == modes
    grid = torch.zeros(1, 1 + voice.model.config.num_codebooks, 2, dtype=torch.int64)
    voice.model(grid)
    tables = [
        part
        for table in (voice.model._rope, voice.model._fast_rope)
        for pair in table._tables.values()
        for part in pair
    ]
    assert tables and not any(part.is_inference() for part in tables)


def test_every_random_state_is_put_back():
    def draws():
        return random.random(), np.random.random(), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with random_state_kept(torch.device("cpu")):
        draws()
    assert draws() == expected


def data_of(*texts: str, held_out: list[int]) -> SimpleNamespace:
    clips = SimpleNamespace(text_of=lambda clip: texts[clip])
    return SimpleNamespace(
        held_out=held_out, dataset=SimpleNamespace(clips=clips), train_lengths=dict.fromkeys(range(3))
    )


def test_held_out_texts_are_spoken_those_of_fair_length_first():
    long = "This is what one says in a sentence of fair length."
    assert sample_texts(data_of("no", "Hm.", "Oh.", "Yes.", long, held_out=[3, 4, 1])) == [long, "Yes."]


def test_what_lacks_is_filled_up_in_the_language_of_the_held_out():
    assert sample_texts(data_of("a", "b", "c", "One is held out.", held_out=[3])) == ["One is held out.", ENGLISH[0]]
    russian = data_of("Первая запись.", "Вторая.", "Третья.", "Четвёртая.", held_out=[3])
    assert sample_texts(russian) == ["Четвёртая.", "Первая запись."]
    assert sample_texts(data_of("a", held_out=[])) == sample_texts(None) == list(ENGLISH)


def test_without_the_extra_one_line_says_what_could_be_measured(monkeypatch, caplog):
    monkeypatch.setattr(listening, "missing", lambda *packages: list(packages))
    with caplog.at_level(logging.INFO, "fish_speech"):
        measures = Listener(ENGLISH, ALLISON).measure([Sample(ENGLISH[0], np.zeros(100, np.float32), 100)])
    assert measures == {} and len(caplog.records) == 1 and "[eval]" in caplog.text


def test_other_languages_and_several_speakers_are_not_measured(caplog):
    with caplog.at_level(logging.INFO, "fish_speech"):
        listener = Listener(["Доброе утро, как у вас дела сегодня?"], ALLISON, speakers=3)
    assert not listener.hears and not listener.compares
    assert "English only" in caplog.text and "3 speakers" in caplog.text


def test_what_was_not_said_is_all_wrong():
    assert Listener(ENGLISH, None).measure([Sample(ENGLISH[0], np.zeros(0, np.float32), 44100)]) == {"val/wer": 1.0}


@pytest.mark.slow
def test_a_speakers_own_recording_is_heard_and_alike():
    path = sorted(ALLISON.glob("*.flac"))[0]
    sound, rate = soundfile.read(path, dtype="float32")
    text = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
    measured = Listener([text], ALLISON).measure([Sample(text, sound, rate)])
    assert measured["val/wer"] < 0.5 and measured["val/similarity"] > 0.85


def test_a_sharded_model_does_not_speak(tmp_path, small_base, monkeypatch, caplog):
    monkeypatch.setattr(spoken, "_is_sharded", lambda trainer: True)
    with caplog.at_level(logging.WARNING, "fish_speech"):
        train(tmp_path, small_base, samples_of(tmp_path, small_base), steps=2)
    assert "spread over processes" in caplog.text and not (tmp_path / "samples").exists()


@pytest.mark.parametrize(
    ("base", "expected"), [("small_base", SamplingConfig()), ("small_s1_base", SamplingConfig(0.8, 0.8, 1.1))]
)
def test_samples_are_drawn_as_the_version_of_the_base_does(tmp_path, request, monkeypatch, base, expected):
    asked, codes = [], Speaker.codes
    monkeypatch.setattr(Speaker, "codes", lambda self, what: asked.append(what.sampling) or codes(self, what))
    folder = request.getfixturevalue(base)
    train(tmp_path, folder, samples_of(tmp_path, folder), steps=1)
    assert set(asked) == {expected}


def test_a_model_of_s1_speaks_too_and_is_trained_the_same_to_the_bit(tmp_path, small_s1_base):
    voice = train(tmp_path, small_s1_base, samples_of(tmp_path, small_s1_base), steps=3)
    for one, other in zip(state(voice), state(train(tmp_path, small_s1_base, steps=3)), strict=True):
        assert torch.equal(one, other)
    names = [f"step_{step:09d}_{number}.wav" for step in (0, 2) for number in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == names
    for name in names:
        sound, rate = soundfile.read(tmp_path / "samples" / name)
        assert rate == 32000 and 0 < len(sound) <= 0.25 * rate and np.abs(sound).max() > 0
