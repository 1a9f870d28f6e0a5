"""Recogniser, speaker encoder and DNSMOS, on real speech."""

import importlib.util
import sys

import numpy as np
import pytest

from fish_speech.audio import read_audio
from fish_speech.errors import UserError
from fish_speech.evaluation import (
    SpeakerEncoder,
    dnsmos,
    evaluate_recordings,
    mean_embedding,
    measure,
    plan_listening,
    similarity,
    transcribe,
    word_errors,
)
from fish_speech.evaluation.measure import Listening, TargetVoice
from fish_speech.evaluation.similarity import import_voice_detector
from fish_speech.evaluation.systems import Clip, System

WITHOUT = "the eval extra is not installed"


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip("webrtcvad", reason=WITHOUT)
    pytest.importorskip("resemblyzer", reason=WITHOUT)
    return SpeakerEncoder()


def test_clear_speech_is_understood(allison):
    pytest.importorskip("pocketsphinx", reason=WITHOUT)
    text = allison[0].with_suffix(".txt").read_text(encoding="utf-8")
    heard = transcribe(*read_audio(allison[0]), asr="pocketsphinx")
    rate = word_errors(text, heard).rate
    assert rate is not None and rate < 0.4, heard  # 3 of 16 words are misheard


def test_what_is_heard_does_not_depend_on_what_was_heard_before(allison):
    pytest.importorskip("pocketsphinx", reason=WITHOUT)
    clip = read_audio(allison[1])
    first = transcribe(*clip, asr="pocketsphinx")
    transcribe(0.01 * np.random.default_rng(0).standard_normal(16000).astype(np.float32), 16000, asr="pocketsphinx")
    assert transcribe(*clip, asr="pocketsphinx") == first


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(8000, np.float32)])
def test_nothing_is_heard_in_silence(samples):
    pytest.importorskip("pocketsphinx", reason=WITHOUT)
    assert transcribe(samples, 16000, asr="pocketsphinx") == ""


def test_one_speaker_is_more_like_herself_than_like_a_synthetic_voice(encoder, allison, synthetic):
    first, second, *others = (encoder.embed(*read_audio(path)) for path in allison)
    stranger = encoder.embed(*synthetic)
    voice = mean_embedding([second, *others])
    assert similarity(first, voice) > 0.85
    assert similarity(stranger, voice) < 0.75
    assert similarity(first, first) == pytest.approx(1)
    assert similarity(first, stranger) == pytest.approx(similarity(stranger, first))


@pytest.mark.parametrize("seconds", [0, 0.01, 1])
def test_silence_has_no_voice(encoder, seconds):
    assert encoder.embed(np.zeros(round(seconds * 16000), np.float32), 16000) is None


def test_a_voice_detector_that_wants_pkg_resources_is_imported_without_it(tmp_path, monkeypatch):
    lines = "import pkg_resources", "version = pkg_resources.get_distribution('numpy').version"
    (tmp_path / "webrtcvad.py").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "webrtcvad", None)  # notes what is there, so that the stand-in does not stay
    del sys.modules["webrtcvad"]
    monkeypatch.delitem(sys.modules, "pkg_resources", raising=False)
    import_voice_detector()
    assert sys.modules["webrtcvad"].version == np.__version__
    if importlib.util.find_spec("pkg_resources") is None:
        assert "pkg_resources" not in sys.modules


def test_a_recording_is_not_compared_with_itself(tmp_path):
    a, b, c = np.eye(3)
    voice = TargetVoice({tmp_path / "a": a, tmp_path / "b": b, tmp_path / "c": c})
    assert voice.score(a, tmp_path / "a") == pytest.approx(0)
    assert voice.score(a) == pytest.approx(3**-0.5)
    assert TargetVoice({tmp_path / "a": a}).score(a, tmp_path / "a") == pytest.approx(1)  # there is no other


def test_a_codecs_clip_and_its_original_are_compared_with_the_same_recordings(tmp_path, monkeypatch):
    """Each recording is its own axis: a mean that held the original would be nearer to what the codec made of it."""
    sounds = [tmp_path / name for name in ("0.wav", "1.wav", "2.wav")]
    voices = dict(zip(sounds, np.eye(3)))
    voices[tmp_path / "decoded.wav"] = voices[sounds[0]]  # a perfect codec
    monkeypatch.setattr(measure, "find_recordings", lambda folder: sounds)
    monkeypatch.setattr(
        measure,
        "_measure_all",
        lambda wanted, workers: {(path, text): {"embedding": voices[path]} for path, text in wanted},
    )
    clips = {"codec": Clip("0", None, tmp_path / "decoded.wav", sounds[0]), "originals": Clip("0", None, sounds[0])}
    systems = [System(name, name, tmp_path, [clip]) for name, clip in clips.items()]
    results = measure.evaluate(systems, Listening(frozenset({"similarity"})), tmp_path)
    assert [result["clips"][0]["similarity"] for result in results] == pytest.approx([0, 0])


def test_dnsmos_prefers_clean_speech_to_noisy(allison):
    pytest.importorskip("onnxruntime", reason=WITHOUT)
    pytest.importorskip("speechmos", reason=WITHOUT)
    samples, rate = read_audio(allison[1])
    noisy = samples + 0.1 * np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
    clean, spoilt = dnsmos(samples, rate), dnsmos(noisy, rate)
    assert clean["overall"] > 2.5 > 2 > spoilt["overall"]
    assert dnsmos(np.zeros(0), rate) is None


@pytest.mark.slow
def test_recordings_are_summed_up_for_the_demo(allison):
    for package in ("jiwer", "num2words", "pocketsphinx", "resemblyzer", "speechmos", "onnxruntime"):
        pytest.importorskip(package, reason=WITHOUT)
    items = [(path, path.with_suffix(".txt").read_text(encoding="utf-8")) for path in allison]
    summary = evaluate_recordings(items, speaker=allison[0].parent, asr="pocketsphinx")
    assert summary["clips"] == len(summary["per_clip"]) == 4
    assert 0 < summary["wer"] < 0.5 and summary["wer_95"][0] <= summary["wer"] <= summary["wer_95"][1]
    assert summary["similarity"] > 0.9
    assert 1 <= summary["dnsmos_overall"] <= 5


def test_whisper_without_its_weights_is_refused_before_anything_is_heard(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    for request, model in (("whisper", None), ("auto", "tiny")):
        with pytest.raises(UserError, match="no whisper weights"):
            plan_listening(["intelligibility"], request, model)


def test_a_missing_package_leaves_out_a_measure_with_one_line_or_is_an_error_if_asked_for(monkeypatch):
    def find(name):
        return None if name in ("speechmos", "resemblyzer") else object()

    monkeypatch.setattr("importlib.util.find_spec", find)
    monkeypatch.setitem(sys.modules, "speechmos", None)
    listening, lines = plan_listening(None, "pocketsphinx")
    assert listening.measures == {"intelligibility"}
    assert [line.split()[0] for line in lines] == ["similarity", "quality"]
    with pytest.raises(UserError, match=r"pip install 'fish-speech-voice-toolkit\[eval\]'"):
        plan_listening(["quality"])
