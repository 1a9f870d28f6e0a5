"""Which recogniser is taken, when it must be there, and when its lack is only told."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from fish_speech.errors import UserError
from fish_speech.prepare.language import is_english
from fish_speech.prepare.options import Options, Processing, Recognition
from fish_speech.prepare.plan import Job, can_hear, choose_recognition, digest, make_task
from fish_speech.prepare.sources import Source
from fish_speech.prepare.transcripts import Transcript

ENGLISH = "That is the text of the recording, and it was read by a person."
GIVEN = Transcript(ENGLISH, (), "txt", None, Path("a.txt"))
NONE = Transcript(None, (), None, "no transcript: none", None)


@pytest.fixture(autouse=True)
def no_whisper_weights(tmp_path, monkeypatch):
    """A machine on which nobody has fetched a whisper model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(logging.getLogger("fish_speech"), "propagate", True)


def job(transcript: Transcript, seconds: float = 5.0, name: str = "a") -> Job:
    return Job(Source(Path(f"/in/{name}.wav"), "anna"), transcript, seconds)


def options(transcribe: bool = False, **more) -> Options:
    return Options(("in",), Path("out"), processing=Processing(transcribe=transcribe), **more)


def test_short_recordings_with_their_texts_need_no_recogniser():
    assert choose_recognition(options(), [job(GIVEN), job(NONE)]) is None


def test_a_long_recording_with_its_text_takes_what_is_here():
    pytest.importorskip("pocketsphinx")
    wanted = choose_recognition(options(), [job(GIVEN, 90.0)])
    assert wanted == Recognition("pocketsphinx", None, "en") and not wanted.download


def test_one_short_text_in_another_language_changes_nothing_for_the_long_ones():
    german = replace(GIVEN, text="Das ist der Text der Aufnahme, und gelesen hat ihn ein Mensch, der das gut kann.")
    wanted = choose_recognition(options(), [job(GIVEN, 90.0), job(german, 5.0, "b")])
    assert wanted is not None and wanted.asr == "pocketsphinx"


def test_a_recogniser_that_nobody_needs_is_told(caplog):
    assert choose_recognition(options(asr="pocketsphinx"), [job(GIVEN)]) is None
    assert "have no effect" in caplog.text


def test_a_text_in_a_language_that_nothing_here_hears_is_told(caplog):
    german = replace(GIVEN, text="Das ist der Text der Aufnahme, und gelesen hat ihn ein Mensch, der das gut kann.")
    assert choose_recognition(options(), [job(german, 90.0)]) is None
    assert "cannot be cut by them" in caplog.text


def test_recordings_without_text_want_whisper_and_may_fetch_it():
    pytest.importorskip("whisper")
    wanted = choose_recognition(options(True), [job(GIVEN), job(NONE)])
    assert wanted is not None and (wanted.asr, wanted.language, wanted.download) == ("whisper", None, True)


@pytest.mark.parametrize("jobs", [[job(GIVEN)], [job(NONE)]])
def test_a_model_file_that_is_not_there_is_a_wrong_request(tmp_path, jobs):
    pytest.importorskip("whisper")
    with pytest.raises(UserError, match=r"missing\.pt"):
        choose_recognition(options(True, whisper_model=str(tmp_path / "missing.pt")), jobs)


@pytest.mark.parametrize("transcript", [GIVEN, NONE])
def test_a_model_that_cannot_be_fetched_is_missed_only_where_there_is_no_text(transcript, caplog, monkeypatch):
    whisper = pytest.importorskip("whisper")
    monkeypatch.setitem(whisper._MODELS, "tiny", f"http://127.0.0.1:9/{'0' * 64}/tiny.pt")  # nobody answers there
    request = options(True, whisper_model="tiny", device="cpu")
    wanted = choose_recognition(request, [job(transcript)])
    request = replace(request, processing=replace(request.processing, recognition=wanted))
    tasks = [make_task(job(transcript), "anna/a", Path("out"), request.processing)]
    if transcript is GIVEN:
        assert not can_hear(request, tasks) and "texts are not checked" in caplog.text
    else:
        with pytest.raises(UserError, match="tiny"):
            can_hear(request, tasks)
    assert can_hear(request, []), "nothing to hear, nothing to fetch"


def test_how_a_recogniser_is_loaded_does_not_make_clips_anew():
    one = Recognition("whisper", "small", None, "cuda", True)
    other = Recognition("whisper", "small", None, "cpu", False)
    assert digest(one) == digest(other) != digest(replace(one, whisper_model="base"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (ENGLISH, True),
        ("Yes", True),
        ("Ein Satz, der nicht in der Sprache ist, die hier gehört wird, und lang genug.", False),
    ],
)
def test_english_is_told_by_its_most_frequent_words(text, answer):
    assert is_english(text) == answer
