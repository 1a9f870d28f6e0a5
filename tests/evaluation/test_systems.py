"""Recordings are listed, checkpoints speak and say whether they ended, codecs give back what went in."""

import json
import os
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from fish_speech import evaluate
from fish_speech.audio import read_audio, write_wav
from fish_speech.checkpoint import sha256
from fish_speech.errors import UserError
from fish_speech.evaluation import systems
from fish_speech.synthesis import speak
from fish_speech.synthesis.sampling import SamplingConfig
from fish_speech.synthesis.voices import write_reference

from ..conftest import CODEC_FILE


@pytest.fixture(scope="module")
def speaker(small_base):
    return systems.load_voice(small_base, "cpu")


def test_recordings_are_listed_in_order_with_their_words(tmp_path):
    for name in ("b/two.wav", "a.wav", "A/a.wav", "A_a.wav"):
        write_wav(tmp_path / name, np.zeros(800), 8000)
    (tmp_path / "b/two.lab").write_text("Two  words\n", encoding="utf-8")
    found = systems.read_recordings("r", tmp_path)
    assert [clip.text for clip in found.clips] == [None, None, None, "Two words"]
    assert len({clip.name for clip in found.clips}) == 4
    assert found.clips[3].name == "b_two"
    assert len(systems.read_recordings("r", tmp_path, limit=2).clips) == 2


def test_a_clip_has_one_name_however_its_folder_is_given(tmp_path, monkeypatch):
    write_wav(tmp_path / "voice/a.wav", np.zeros(800), 8000)
    monkeypatch.chdir(tmp_path)
    assert systems.find_recordings(Path("voice")) == systems.find_recordings(tmp_path / "voice" / ".." / "voice")


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(UserError, match="no audio file"):
        systems.read_recordings("r", tmp_path)


@pytest.mark.parametrize("ends", [True, False])
def test_a_sentence_that_ran_into_the_limit_is_told_from_one_that_ended(speaker, tmp_path, monkeypatch, ends):
    end = speaker.model.tokenizer.id_of("<|im_end|>")
    frame = torch.tensor([speaker.model.semantic_begin_id, *[5] * speaker.codec.codebooks])

    def columns(*_):
        yield from [frame] * 6
        if ends:
            yield torch.tensor([end, *[0] * speaker.codec.codebooks])

    monkeypatch.setattr(speak, "generate_columns", columns)
    spoken = systems.speak_texts("m", tmp_path, speaker, ["One.", "Two."], tmp_path, SamplingConfig(), seed=1)
    assert [clip.known["ends_by_itself"] for clip in spoken.clips] == [ends, ends]
    assert all(clip.sound.is_file() for clip in spoken.clips)


def test_the_same_seed_says_the_same_and_each_text_is_drawn_by_its_own(speaker, tmp_path):
    def say(folder, *texts):
        made = systems.speak_texts("m", folder, speaker, texts, folder, SamplingConfig(), seed=1)
        return [clip.sound.read_bytes() for clip in made.clips]

    first = say(tmp_path / "a", "Hi.", "Ho.")
    assert say(tmp_path / "b", "Hi.", "Ho.") == first
    assert say(tmp_path / "c", "Hi.") == first[:1]


@pytest.mark.parametrize("version", ["1.5", "s1-mini"])
def test_a_codec_gives_back_every_clip_at_its_own_length_and_notes_the_distance(
    small_base, small_s1_base, tmp_path, version
):
    weights = {"1.5": small_base / CODEC_FILE, "s1-mini": small_s1_base / "codec.pth"}[version]
    rng = np.random.default_rng(0)
    for number, seconds in enumerate((0.5, 0.7, 0.01)):
        write_wav(tmp_path / f"in/{number}.wav", 0.1 * rng.standard_normal(round(seconds * 44100)), 44100)
    originals = systems.read_recordings("o", tmp_path / "in")
    made = systems.reconstruct("c", weights, originals, tmp_path / "out", "cpu")
    assert [clip.failure is None for clip in made.clips] == [True, True, False]
    for clip, seconds in zip(made.clips[:2], (0.5, 0.7)):
        assert clip.known["mel_l1"] > 0
        samples, rate = read_audio(clip.sound)
        assert len(samples) / rate == pytest.approx(seconds, abs=2048 / 44100)  # whole frames of 2048 samples


def test_the_distance_of_a_sound_to_itself_is_zero(speaker):
    waveform = torch.sin(torch.arange(9000) / 7)
    assert speaker.codec.log_mel.distance(waveform[None], waveform[None]) == 0


def test_reference_codes_need_their_words(speaker, tmp_path):
    np.save(tmp_path / "voice.npy", np.zeros((8, 5), np.int32))
    with pytest.raises(UserError, match=r"voice\.txt"):
        systems.read_prompts([tmp_path / "voice.npy"], speaker)
    (tmp_path / "voice.txt").write_bytes(b"F\xfcnf")
    with pytest.raises(UserError, match="UTF-8"):
        systems.read_prompts([tmp_path / "voice.npy"], speaker)
    (tmp_path / "voice.txt").write_text("Five frames.", encoding="utf-8")
    assert systems.read_prompts([tmp_path / "voice.npy"], speaker)[0].text == "Five frames."


def test_a_merged_folder_speaks_with_the_reference_that_it_uses_itself(speaker, tmp_path):
    assert systems.packed_prompt(tmp_path) is None  # a base model
    codes = np.arange(40, dtype=np.int32).reshape(8, 5)
    write_reference(tmp_path / "reference.npy", codes, "Five frames.")
    reference = {"file": "reference.npy", "text": "Five frames.", "sha256": sha256(tmp_path / "reference.npy")}
    for used in (True, False):
        voice = {"reference": reference, "use_reference": used}
        (tmp_path / "voice.json").write_text(json.dumps(voice), encoding="utf-8")
        assert (systems.packed_prompt(tmp_path) is not None) is used
    (tmp_path / "voice.json").write_text(json.dumps({"reference": reference}), encoding="utf-8")
    (prompt,) = systems.read_prompts([], speaker, systems.packed_prompt(tmp_path))
    assert prompt.text == "Five frames." and np.array_equal(prompt.codes, codes)
    (tmp_path / "reference.npy").write_bytes(b"another")
    with pytest.raises(UserError, match="damaged"):
        systems.packed_prompt(tmp_path)


def test_an_evaluation_speaks_as_the_merged_folder_does_unless_told_otherwise(small_base, tmp_path):
    pack = tmp_path / "pack"
    pack.mkdir()
    for path in small_base.iterdir():
        os.link(path, pack / path.name)
    write_reference(pack / "reference.npy", np.arange(160, dtype=np.int32).reshape(8, 20), "Twenty frames.")
    reference = {"file": "reference.npy", "text": "Twenty frames.", "sha256": sha256(pack / "reference.npy")}
    (pack / "voice.json").unlink(missing_ok=True)
    (pack / "voice.json").write_text(json.dumps({"reference": reference}), encoding="utf-8")
    made = {}
    for flag in ("--device=cpu", "--no-reference"):
        flags = ["--checkpoint", f"a={pack}", "--output", str(tmp_path / flag), "--device", "cpu", flag]
        (made[flag],) = evaluate.make_sounds(evaluate.make_parser().parse_args(flags), ["Yes."])
    assert made["--device=cpu"].record["reference"] == str(pack / "reference.npy")
    assert "reference" not in made["--no-reference"].record
    sounds = [system.clips[0].sound.read_bytes() for system in made.values()]
    assert sounds[0] != sounds[1]


def test_a_voice_of_s1_speaks_and_takes_references_of_its_own_codes_alone(small_s1_base, tmp_path):
    voice = systems.load_voice(small_s1_base, "cpu")
    spoken = systems.speak_texts("s1", small_s1_base, voice, ["Yes."], tmp_path, SamplingConfig(), 1)
    samples, rate = read_audio(spoken.clips[0].sound)
    assert rate == voice.codec.sample_rate and len(samples)
    for rows, good in ((10, True), (8, False)):
        write_reference(tmp_path / f"{rows}.npy", np.zeros((rows, 9), np.int32), "Nine frames.")
        if good:
            (prompt,) = systems.read_prompts([tmp_path / f"{rows}.npy"], voice)
            assert prompt.codes.shape == (10, 9)
        else:
            with pytest.raises(UserError, match=r"as Fish Speech 1\.5 has") as error:
                systems.read_prompts([tmp_path / f"{rows}.npy"], voice)
            assert "--model-path" in error.value.fix, "without it 1.5's codes would be made again"


def test_a_folder_without_a_codec_is_given_that_of_its_own_family_alone(
    small_base, small_s1_base, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name, base in (("mine", small_base), ("s1", small_s1_base)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes((base / "config.json").read_bytes())
    for folder in ("checkpoints/fish-speech-1.5", "checkpoints/openaudio-s1-mini"):
        Path(folder).mkdir(parents=True)
    for known, codec in (("s1", "openaudio-s1-mini/codec.pth"), ("mine", f"fish-speech-1.5/{CODEC_FILE}")):
        with pytest.raises(UserError, match="has no codec"):
            systems.codec_beside(Path(known))
        Path("checkpoints", codec).touch()
        assert systems.codec_beside(Path(known)) == Path("checkpoints", codec)


def test_a_voice_speaks_as_its_version_does_where_nobody_says(small_base, small_s1_base, tmp_path):
    as_1_5, as_s1 = SamplingConfig(0.7, 0.7, 1.2), SamplingConfig(0.8, 0.8, 1.1)
    assert [systems.usual_sampling(folder) for folder in (small_base, small_s1_base, tmp_path)] == [
        as_1_5,
        as_s1,
        as_1_5,
    ]
    nothing, cold = (Namespace(temperature=temperature, top_p=None) for temperature in (None, 0.0))
    assert evaluate.sampling_config(nothing, small_s1_base) == as_s1
    assert evaluate.sampling_config(cold, small_s1_base) == SamplingConfig(0.0, 0.8, 1.1)
    with pytest.raises(UserError, match="sampling settings"):
        evaluate.sampling_config(Namespace(temperature=None, top_p=2.0), small_base)
