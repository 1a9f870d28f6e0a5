"""A voice from its files: its own phonemes and speakers, sentence by sentence, and clear words for what does not fit."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from fish_speech.errors import UserError
from piper_train.phonemes.ids import default_table, ids_of_sentence
from piper_train.speech.session import QUIET, open_session, run_session
from piper_train.speech.sound import levelled
from piper_train.speech.voice import LONGEST_SENTENCE, Manner, OnnxVoice

STILL = Manner(noise_scale=0, noise_w=0)


def change(path: Path, **changes) -> Path:
    """Change keys of the config beside a voice."""
    beside = path.with_name(f"{path.name}.json")
    config = {**json.loads(beside.read_text(encoding="utf-8")), **changes}
    beside.write_text(json.dumps({key: value for key, value in config.items() if value is not None}), encoding="utf-8")
    return path


@pytest.fixture()
def text_voice(own_voice):
    """A voice that takes each character for a phoneme, so that no espeak is needed."""

    def voice(kind: str = "single", **changes) -> Path:
        return change(own_voice(kind), phoneme_type="text", **changes)

    return voice


def spoken(path: Path, text: str, manner: Manner = STILL, **more) -> list[np.ndarray]:
    with OnnxVoice.load(path, **more) as voice:
        return list(voice.speak(text, manner))


# --- what it says


def test_it_says_what_the_model_says_for_the_ids_of_each_sentence(text_voice):
    path = text_voice()
    sentences = spoken(path, "hello there.\n\nWell")
    session = open_session(path)
    for sound, text in zip(sentences, ["hello there.", "Well"], strict=True):
        expected = levelled(run_session(session, ids_of_sentence(text, default_table()), QUIET, None))
        assert np.array_equal(sound, expected) and np.abs(sound).max() == 1


def test_the_table_is_the_voices_own(text_voice):
    table = {phoneme: list(ids) for phoneme, ids in default_table().items()}
    swapped = {**table, "a": table["b"], "b": table["a"]}
    [one] = spoken(text_voice(), "aab")
    [other] = spoken(text_voice(phoneme_id_map=swapped), "bba")
    assert np.array_equal(one, other)


def test_scales_default_to_those_of_the_config(text_voice):
    path = text_voice(inference={"noise_scale": 0.0, "length_scale": 2.0, "noise_w": 0.0})
    [slow] = spoken(path, "hello there", Manner())
    [fast] = spoken(path, "hello there", Manner(length_scale=1.0))
    assert 1.5 * len(fast) < len(slow) <= 2 * len(fast)
    assert np.array_equal(spoken(path, "hello there", Manner())[0], slow)


def test_the_same_seed_gives_the_same_noise(text_voice):
    path, lively = text_voice(), Manner(noise_scale=0.667, noise_w=0.8)
    one, same, other = (spoken(path, "hello\n\nthere", lively, seed=seed) for seed in (5, 5, 6))
    assert all(map(np.array_equal, one, same)) and not all(map(np.array_equal, one, other))
    with OnnxVoice.load(path, seed=6) as voice:
        list(voice.speak("something else", lively))
        voice.reseed(5)
        assert all(map(np.array_equal, one, voice.speak("hello\n\nthere", lively)))


def test_silence_comes_between_sentences_only(text_voice):
    path = text_voice()
    plain = spoken(path, "one\n\nTwo\n\nThree")
    paused = spoken(path, "one\n\nTwo\n\nThree", Manner(noise_scale=0, noise_w=0, sentence_silence_s=0.5))
    assert [len(piece) for piece in paused] == [len(plain[0]), 11025, len(plain[1]), 11025, len(plain[2])]
    assert not paused[1].any()


def test_loudness_is_left_alone_or_set_as_asked(text_voice):
    path = text_voice()
    [raw] = spoken(path, "hello there", Manner(noise_scale=0, noise_w=0, normalize=False))
    [half] = spoken(path, "hello there", Manner(noise_scale=0, noise_w=0, volume=0.5))
    assert 0 < np.abs(raw).max() < 0.99 and np.abs(half).max() == 0.5
    np.testing.assert_allclose(raw / np.abs(raw).max() / 2, half, atol=1e-6)


def test_unknown_phonemes_are_counted_and_the_rest_is_spoken(text_voice):
    path = text_voice()
    with OnnxVoice.load(path) as voice:
        [sound] = voice.speak("aЖbЖcЩ", STILL)
        assert voice.missing == {"Ж": 2, "Щ": 1}
        [known] = voice.speak("abc", STILL)
        assert np.array_equal(sound, known)
        assert list(voice.speak("ЖЩ", STILL)) == []


def test_a_sentence_without_an_end_is_said_in_parts(text_voice):
    path = text_voice()
    parts = spoken(path, "abcd " * 200)
    assert len(parts) == -(-1000 // (LONGEST_SENTENCE - 1)) and max(map(len, parts)) < 22050 * 120


def test_sentences_come_one_by_one(text_voice):
    with OnnxVoice.load(text_voice()) as voice:
        pieces = voice.speak("\n\n".join(["Hello there."] * 1000), STILL)
        assert len(next(pieces)) == len(next(pieces)) > 0
        pieces.close()


# --- speakers


def test_speakers_are_chosen_by_id_or_name(text_voice, caplog):
    path = text_voice("multi")

    def by(speaker) -> np.ndarray:
        return spoken(path, "a", Manner(speaker, noise_scale=0, noise_w=0))[0]

    assert np.array_equal(by("Борис"), by(1)) and np.array_equal(by("1"), by(1))
    assert np.array_equal(by(None), by(0)) and not np.array_equal(by(0), by(1))
    assert np.array_equal(by("17"), by(2))  # no id: a name


def test_the_default_speaker_is_the_configs(text_voice):
    path = text_voice("multi", default_speaker_id=2)
    assert np.array_equal(spoken(path, "hello")[0], spoken(path, "hello", Manner("2", noise_scale=0, noise_w=0))[0])


def test_a_number_is_an_id_even_if_a_speaker_has_that_name(text_voice, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("piper_train"), "propagate", True)  # as if no program had been set up here
    path = text_voice("multi", speaker_id_map={"2": 0, "anna": 1, "x": 2})
    sound = spoken(path, "hello", Manner("2", noise_scale=0, noise_w=0))[0]
    assert np.array_equal(sound, spoken(path, "hello", Manner(2, noise_scale=0, noise_w=0))[0])
    assert "speaker 2 is taken as an id; the speaker of that name has the id 0" in caplog.text


@pytest.mark.parametrize(
    ("kind", "speaker", "said"),
    [
        ("multi", "ana", "names like it: anna"),
        ("multi", "7", "the ids 0 to 2"),
        ("multi", "-1", "anna, Борис, 17"),
        ("multi", 3, "the ids 0 to 2"),
        ("multi", "9" * 5000, "the ids 0 to 2"),
        ("single", "anna", "has one speaker"),
        ("single", 1, "has one speaker"),
    ],
)
def test_an_unknown_speaker_is_refused_with_those_there_are(text_voice, kind, speaker, said):
    with pytest.raises(UserError, match=r"there is no speaker") as raised:
        spoken(text_voice(kind), "hello", Manner(speaker))
    assert said in raised.value.why


def test_the_only_speaker_of_a_voice_may_be_named(text_voice):
    path = text_voice()
    assert np.array_equal(spoken(path, "hello", Manner(0, noise_scale=0, noise_w=0))[0], spoken(path, "hello")[0])


@pytest.mark.parametrize(
    "values",
    [
        {"length_scale": 0.0},
        {"noise_scale": -1.0},
        {"noise_w": float("nan")},
        {"sentence_silence_s": 1e9},
        {"volume": -1},
    ],
)
def test_a_manner_that_makes_no_sense_is_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Manner(**values)


# --- files that are published, and files that do not fit


def test_a_published_config_loads(text_voice):
    few = dict(list({phoneme: list(ids) for phoneme, ids in default_table().items()}.items())[:159])
    path = text_voice(
        audio={"sample_rate": 22050, "quality": "medium"},
        dataset="lessac",
        language={"code": "en_US", "family": "en", "region": "US", "name_english": "English"},
        phoneme_map={},
        phoneme_id_map=few,
        piper_version="1.0.0",
        speaker_id_map=None,
        inference=None,
    )
    with OnnxVoice.load(path) as voice:
        assert len(voice.config.phoneme_id_map) == 159
        assert voice.scales(Manner()) == (0.667, 1.0, 0.8) and voice.sample_rate == 22050
        assert len(list(voice.speak("hello there"))) == 1


def test_a_missing_config_is_named_with_its_place(text_voice):
    path = text_voice()
    path.with_name("voice.onnx.json").rename(path.with_name("config.json"))
    with pytest.raises(UserError) as raised:
        OnnxVoice.load(path)
    assert "has no config" in raised.value.what and str(path.with_name("voice.onnx.json")) in raised.value.why
    assert "config.json" in raised.value.fix


def test_a_missing_voice_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the voice .*nobody\.onnx"):
        OnnxVoice.load(tmp_path / "nobody.onnx")
    with pytest.raises(UserError, match="it is a folder"):
        OnnxVoice.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_symbols": 300}, "the config has 300 symbols"),
        ({"num_symbols": 200}, "the config has 200 symbols, the model more"),
        ({"phoneme_id_map": {"_": [0], "^": [1], "$": [2], "a": [256]}}, "id 256"),
        ({"phoneme_id_map": {"_": [0], "^": [1], "$": [2], "a": [256]}, "num_symbols": 300}, "the model fewer"),
        ({"phoneme_id_map": {"a": [5]}}, "it lacks _"),
        ({"num_speakers": 2}, "the model has one speaker, its config says 2"),
        ({"audio": {"sample_rate": 3}}, "audio.sample_rate is 3"),
        ({"num_symbols": None}, "num_symbols"),
    ],
)
def test_the_config_of_another_voice_is_refused(text_voice, changes, said):
    with pytest.raises(UserError) as raised:
        OnnxVoice.load(text_voice(**changes))
    assert said in raised.value.why, raised.value


def test_the_config_of_a_voice_with_other_speakers_is_refused(text_voice):
    with pytest.raises(UserError) as raised:
        OnnxVoice.load(text_voice("multi", num_speakers=1, speaker_id_map={}))
    assert "the model has several speakers, its config says 1" in raised.value.why
    with pytest.raises(UserError, match="do not belong together"):
        OnnxVoice.load(text_voice("multi", num_speakers=4))


@pytest.mark.parametrize("content", [b"", b"not an onnx at all", None])
def test_a_broken_model_is_refused(text_voice, content, capfd):
    path = text_voice()
    path.write_bytes(path.read_bytes()[:50_000] if content is None else content)
    with pytest.raises(UserError, match="is not a model that onnxruntime can load"):
        OnnxVoice.load(path)
    assert capfd.readouterr() == ("", "")


def stretched(path: Path, factor: float) -> Path:
    """Multiply the durations that the model at `path` asks for."""
    model = onnx.load(path)
    nodes = model.graph.node
    at = next(number for number, node in enumerate(nodes) if node.op_type == "Ceil")
    value = onnx.numpy_helper.from_array(np.array(factor, np.float32))
    nodes.insert(at, onnx.helper.make_node("Constant", [], ["factor"], value=value))
    nodes.insert(at + 1, onnx.helper.make_node("Mul", [nodes[at + 1].input[0], "factor"], ["stretched"]))
    nodes[at + 2].input[0] = "stretched"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("factor", "what", "why"),
    [
        (1e8, "ran out of memory in a sentence", "learned too little"),  # more than any machine has
        (3e38, "the voice cannot speak", "it breaks off"),
        (float("nan"), "the voice cannot speak", "it breaks off"),
    ],
)
def test_a_model_that_asks_for_endless_sound_is_stopped(text_voice, factor, what, why):
    with pytest.raises(UserError) as raised:
        OnnxVoice.load(stretched(text_voice(), factor))
    assert what in raised.value.what and why in raised.value.why, raised.value


def test_a_sentence_that_takes_too_much_memory_is_told_with_the_scale(text_voice):
    """As on a machine with little memory: the bound is of the process, so that it is met in one of its own."""
    code = (
        "import sys; from pathlib import Path; from piper_train.speech import memory\n"
        "memory.MOST_BYTES = 8 << 20; memory.memory = lambda: (None, None); memory._LEAST_BYTES = 0\n"
        "from piper_train.speech.voice import *\n"
        "voice = OnnxVoice.load(Path(sys.argv[1])); list(voice.speak('a'))\n"
        "list(voice.speak('abcd ' * 50, Manner(length_scale=10.0)))\n"
    )
    arguments = [sys.executable, "-c", code, str(text_voice())]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert "ran out of memory in a sentence" in done.stderr and "which is 10" in done.stderr, done.stderr


def test_a_model_whose_weights_are_no_numbers_is_refused(text_voice):
    path = text_voice()
    model = onnx.load(path)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("conv_pre.bias"))
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full(weights.dims, np.nan, np.float32), weights.name))
    onnx.save(model, path)
    with pytest.raises(UserError, match="the voice cannot speak") as raised:
        OnnxVoice.load(path)
    assert "no number" in raised.value.why


def test_another_kind_of_model_is_refused(text_voice):
    path = text_voice()
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["image"], ["label"])],
        "other",
        [value("image", onnx.TensorProto.FLOAT, [1])],
        [value("label", onnx.TensorProto.FLOAT, [1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 15)], ir_version=8)
    onnx.save(model, path)
    with pytest.raises(UserError, match="is not a Piper voice") as raised:
        OnnxVoice.load(path)
    assert "image" in raised.value.why


def test_a_device_that_is_not_there_is_refused(text_voice):
    import onnxruntime

    path = text_voice()
    with pytest.raises(UserError, match="--device mps"):
        OnnxVoice.load(path, device="mps")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(UserError, match="--device cuda"):
            OnnxVoice.load(path, device="cuda")


def test_speaking_needs_no_torch(text_voice):
    code = (
        "import sys; from pathlib import Path; from piper_train.speech.say import sound_of; "
        "from piper_train.speech.voice import *; from fish_speech.synthesis.effects import Effects\n"
        "voice = OnnxVoice.load(Path(sys.argv[1])); list(sound_of(voice, 'hello', Manner(), Effects(pitch=2)))\n"
        "sys.exit('torch' in sys.modules or 'piper' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(text_voice())], check=True, cwd=Path(__file__).parents[2])
