"""A new reference voice: the whole recording, words of a known source, and both files or none."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fish_speech.audio import write_wav
from fish_speech.errors import UserError
from fish_speech.extras import missing
from fish_speech.models import codec_config, load_codec
from fish_speech.prepare.options import Recognition
from fish_speech.synthesis.new_reference import check_target, check_words, create_reference
from fish_speech.synthesis.voice_library import find_voice, list_voices
from fish_speech.synthesis.voices import read_codes, write_reference

REPO = Path(__file__).parents[2]
SAMPLE = REPO / "samples" / "allison" / "conf-kicked.flac"
CODES = np.arange(24, dtype=np.int32).reshape(4, 6)


@pytest.fixture(scope="module")
def codec():
    folder = REPO / "checkpoints" / "minnow"
    return load_codec(folder / "codec.pth", codec_config(str(folder / "codec.yaml")))


@pytest.fixture()
def recording(tmp_path) -> Path:
    """A real recording without words beside it."""
    (tmp_path / "recordings").mkdir()
    return Path(shutil.copy(SAMPLE, tmp_path / "recordings" / "one.flac"))


def sound(path: Path, seconds: float) -> Path:
    noise = np.random.default_rng(0).standard_normal(round(seconds * 16000)).astype(np.float32)
    write_wav(path, 0.05 * noise, 16000)
    return path


def test_codes_and_words_of_a_recording_become_a_voice(tmp_path, codec, recording):
    target = tmp_path / "voices" / "anna.npy"
    made = create_reference(recording, target, " Words\tgiven.\n", codec)
    assert made.path == target and made.text == "Words given." and made.source_of_text == "given"
    voice = find_voice(tmp_path / "voices", "anna")
    codes = read_codes(voice.codes, codec.codebooks, codec.codebook_size)
    assert voice.text == "Words given." and codes.shape == (codec.codebooks, made.frames)
    assert made.frames / codec.frame_rate == pytest.approx(made.seconds, abs=2 / codec.frame_rate)


@pytest.mark.parametrize(("name", "source"), [("one.txt", "one.txt"), ("one.lab", "one.lab")])
def test_words_beside_the_recording_are_taken_and_said(tmp_path, codec, recording, caplog, name, source):
    recording.with_name(name).write_text("Words\nbeside it.\n", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        made = create_reference(recording, tmp_path / "anna.npy", None, codec)
    assert made.text == "Words beside it." and made.source_of_text == source
    assert "Words beside it." in caplog.text and source in caplog.text


def test_words_beside_the_recording_that_cannot_be_read_are_an_error_not_a_reason_to_guess(tmp_path, codec, recording):
    recording.with_suffix(".txt").write_bytes(b"F\xfcnf")
    with pytest.raises(UserError, match="not UTF-8"):
        create_reference(recording, tmp_path / "anna.npy", None, codec)
    assert list(tmp_path.iterdir()) == [recording.parent]


@pytest.mark.skipif(missing("pocketsphinx"), reason="pocketsphinx is not installed")
def test_without_words_they_are_heard_and_said(tmp_path, codec, recording, caplog):
    spoken = SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").lower()
    with caplog.at_level(logging.INFO):
        made = create_reference(recording, tmp_path / "anna.npy", None, codec, Recognition("pocketsphinx", None, "en"))
    assert made.source_of_text.startswith("heard by pocketsphinx") and made.text in caplog.text
    assert len(set(made.text.split()) & set(spoken.replace(".", "").split())) >= 2
    assert (tmp_path / "anna.txt").read_text(encoding="utf-8") == made.text + "\n"


@pytest.mark.skipif(missing("pocketsphinx"), reason="pocketsphinx is not installed")
def test_silence_gets_no_words(tmp_path, codec):
    write_wav(tmp_path / "silence.wav", np.zeros(64000, np.float32), 16000)
    with pytest.raises(UserError, match="not understood"):
        create_reference(tmp_path / "silence.wav", tmp_path / "a.npy", None, codec, Recognition("pocketsphinx"))
    assert not (tmp_path / "a.npy").exists() and not (tmp_path / "a.txt").exists()


def test_a_recogniser_that_is_not_there_is_told_before_anything_is_loaded(recording):
    with pytest.raises(UserError, match="--prompt-text"):
        check_words(recording, None, Recognition("pocketsphinx", None, "de"))
    recording.with_suffix(".txt").write_text("Words.", encoding="utf-8")
    check_words(recording, None, Recognition("pocketsphinx", None, "de"))
    check_words(recording, "Words.", None)
    with pytest.raises(UserError, match="there is no recording"):
        check_words(recording.with_name("gone.flac"), "Words.", None)


@pytest.mark.parametrize(("seconds", "warned"), [(1.0, True), (4.0, False), (31.0, True)])
def test_short_and_long_recordings_are_used_whole_with_a_warning(tmp_path, codec, caplog, seconds, warned):
    made = create_reference(sound(tmp_path / "a.wav", seconds), tmp_path / "v.npy", "Words.", codec)
    assert made.seconds == pytest.approx(seconds, abs=0.01) and made.frames == pytest.approx(seconds * 20, abs=2)
    assert bool(caplog.records) == warned


@pytest.mark.parametrize("text", ["", " ", "...", "a" * 10_001])
def test_words_that_say_nothing_are_refused(tmp_path, codec, recording, text):
    with pytest.raises(UserError, match="--prompt-text"):
        create_reference(recording, tmp_path / "v.npy", text, codec)


def test_a_recording_that_cannot_be_used_is_refused(tmp_path, codec):
    (tmp_path / "noise.wav").write_bytes(b"no sound")
    for path in (tmp_path / "noise.wav", tmp_path / "absent.wav", sound(tmp_path / "tiny.wav", 0.01)):
        with pytest.raises(UserError, match="reference"):
            create_reference(path, tmp_path / "v.npy", "Words.", codec)
    assert not (tmp_path / "v.npy").exists()


def test_a_target_must_be_able_to_hold_codes(tmp_path):
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "words.txt").mkdir()
    for name in ("voice", "voice.wav", "folder.npy", "words.npy", ".npy"):
        with pytest.raises(UserError, match="cannot write"):
            check_target(tmp_path / name)
    check_target(tmp_path / "new" / "voice.npy")


def test_another_voice_is_not_overwritten_unasked(tmp_path, codec, recording):
    target = tmp_path / "anna.npy"
    create_reference(recording, target, "Words.", codec)
    before = target.stat().st_mtime_ns, target.read_bytes()
    create_reference(recording, target, " Words. ", codec)  # the same again
    assert (target.stat().st_mtime_ns, target.read_bytes()) == before
    other = sound(tmp_path / "other.wav", 4.0)
    for audio, text in ((recording, "Other words."), (other, "Words.")):
        with pytest.raises(UserError, match="--overwrite"):
            create_reference(audio, target, text, codec)
        assert target.read_bytes() == before[1] and (tmp_path / "anna.txt").read_text() == "Words.\n"
    create_reference(other, target, "Other words.", codec, overwrite=True)
    assert target.read_bytes() != before[1] and (tmp_path / "anna.txt").read_text() == "Other words.\n"


def test_words_that_lie_where_the_voices_would_are_kept(tmp_path, codec, recording):
    (tmp_path / "anna.txt").write_text("Mine.", encoding="utf-8")
    with pytest.raises(UserError, match="holds other words"):
        create_reference(recording, tmp_path / "anna.npy", "Words.", codec)
    create_reference(recording, tmp_path / "anna.npy", "Mine.", codec)
    assert find_voice(tmp_path, "anna").text == "Mine."


def test_a_damaged_voice_is_no_reason_to_stop_when_overwriting(tmp_path, codec, recording):
    (tmp_path / "anna.npy").write_bytes(b"torn")
    with pytest.raises(UserError, match="--overwrite"):
        create_reference(recording, tmp_path / "anna.npy", "Words.", codec)
    create_reference(recording, tmp_path / "anna.npy", "Words.", codec, overwrite=True)
    assert find_voice(tmp_path, "anna").text == "Words."


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from fish_speech.synthesis.voices import write_reference
def dying(function):
    def call(*args, **keys):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return function(*args, **keys)
    return call
os.fsync = dying(os.fsync)
for name in ("open", "unlink", "replace", "mkdir"):
    setattr(Path, name, dying(getattr(Path, name)))
for step in range(40):
    process = os.fork()
    if process == 0:
        left = step
        write_reference(Path(sys.argv[1], str(step), "a.npy"), np.ones((4, 9), np.int32), "New words.")
        os._exit(0)
    if os.waitpid(process, 0)[1] == 0:
        print(step)
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process for every step would take long")
@pytest.mark.parametrize("before", [False, True], ids=["new", "overwritten"])
def test_a_process_killed_at_any_step_leaves_the_old_voice_the_new_one_or_none(tmp_path, before):
    for step in range(40):
        (tmp_path / str(step)).mkdir()
        if before:
            write_reference(tmp_path / str(step) / "a.npy", CODES, "Old words.")
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    arguments = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True)
    last = int(done.stdout)
    assert last > 6
    states = []
    for step in range(last + 1):
        states.append([(v.frames, v.text, v.problem) for v in list_voices(tmp_path / str(step))])
        assert states[-1] in ([], [(6, "Old words.", None)], [(9, "New words.", None)])
    assert states[-1] == [(9, "New words.", None)]
    assert states[0] == ([(6, "Old words.", None)] if before else [])


def test_a_disk_that_fills_up_leaves_the_old_voice(tmp_path, monkeypatch):
    write_reference(tmp_path / "a.npy", CODES, "Old words.")
    real = os.fsync
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_reference(tmp_path / "a.npy", CODES + 1, "New words.")
    assert find_voice(tmp_path, "a").text == "Old words." and len(list(tmp_path.iterdir())) == 2
