"""Preparing a data set: what is made, what is kept, what is left out."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fish_speech.audio import read_audio, write_wav
from fish_speech.errors import UserError
from piper_train.data.entries import Preparation, entry_path, prepared_sound, read_facts, read_sound
from piper_train.data.index import Index, index_path
from piper_train.data.prepare import prepare
from piper_train.data.prepared import read_record
from piper_train.data.texts import pack, unpack
from piper_train.phonemes.ids import default_table, ids_of_sentence

from .data_sets import RATE, SAMPLES, request_for, text_of, tone, write_data_set

REPO = Path(__file__).parents[2]


def entries(cache: Path) -> dict[Path, int]:
    """Sounds in the cache and when they were written."""
    return {path: path.stat().st_mtime_ns for path in (cache / "audio").rglob("*.safetensors")}


@pytest.fixture()
def six(tmp_path):
    """The metadata.csv of a data set of six clips."""
    return write_data_set(tmp_path / "set", 6)


def test_every_row_becomes_a_clip_with_ids_and_sound(six):
    prepared = prepare(request_for(six))
    assert (prepared.rows, len(prepared.index), prepared.made, prepared.kept) == (6, 6, 6, 0)
    assert prepared.left_out.total == 0
    clip = prepared.index[2]
    assert (clip.number, clip.name, clip.text, clip.speaker) == (3, "002.wav", text_of(2), -1)
    assert list(clip.ids) == ids_of_sentence(list(text_of(2)), default_table())
    sound = read_sound(entry_path(six.parent / ".cache", clip.content, Preparation(RATE, False)))
    np.testing.assert_array_equal(sound, read_audio(Path(clip.recording))[0])
    assert prepared.seconds == pytest.approx(6 * 0.6 + 0.15, abs=0.01)


def test_a_second_run_makes_nothing_and_gives_the_same(six):
    first = prepare(request_for(six))
    before = entries(six.parent / ".cache")
    second = prepare(request_for(six))
    assert (second.made, second.kept) == (0, 6)
    assert entries(six.parent / ".cache") == before
    assert second.index.fingerprint() == first.index.fingerprint()


def test_a_changed_recording_is_made_anew_and_the_others_kept(six):
    first = prepare(request_for(six))
    write_wav(six.parent / "wavs" / "003.wav", tone(0.8, 77), RATE)
    second = prepare(request_for(six))
    assert (second.made, second.kept) == (1, 5)
    assert second.index.arrays["samples"][3] == round(0.8 * RATE)
    assert second.index.fingerprint() != first.index.fingerprint()
    assert len(entries(six.parent / ".cache")) == 6, "the sound of the recording that is gone stays"


def test_a_recording_changed_in_place_without_another_size_or_time_is_noticed(six):
    prepare(request_for(six))
    path = six.parent / "wavs" / "003.wav"
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[5000:5400] = bytes(400)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if os.name == "nt":
        pytest.skip("Windows does not say when a file was last changed apart from its settable time")
    assert path.stat().st_mtime_ns == status.st_mtime_ns and path.stat().st_size == status.st_size
    assert prepare(request_for(six)).made == 1


def test_a_recording_that_was_only_touched_or_renamed_is_kept(six):
    prepare(request_for(six))
    os.utime(six.parent / "wavs" / "001.wav")
    (six.parent / "wavs" / "002.wav").rename(six.parent / "wavs" / "new.wav")
    six.write_text(six.read_text(encoding="utf-8").replace("002.wav", "new.wav"), encoding="utf-8")
    assert (second := prepare(request_for(six))).made == 0 and second.kept == 6


def test_a_changed_text_keeps_the_sounds_and_changes_its_ids_alone(six):
    first = prepare(request_for(six))
    six.write_text(six.read_text(encoding="utf-8").replace(text_of(4), "quite another"), encoding="utf-8")
    second = prepare(request_for(six))
    assert second.made == 0
    changed = [number for number in range(6) if first.index[number].ids != second.index[number].ids]
    assert changed == [4]


def test_another_rate_or_trimming_makes_other_sounds_and_the_first_are_found_again(six):
    prepare(request_for(six))
    other = prepare(request_for(six, sample_rate=16000, segment_size=4096))
    assert other.made == 6 and other.index.arrays["samples"][0] == pytest.approx(0.6 * 16000, abs=2)
    assert prepare(request_for(six)).made == 0


def test_rows_in_another_order_keep_everything(six):
    prepare(request_for(six))
    six.write_text("\n".join(reversed(six.read_text(encoding="utf-8").splitlines())), encoding="utf-8")
    prepared = prepare(request_for(six))
    assert prepared.made == 0 and prepared.index[0].name == "005.wav"


@pytest.mark.parametrize("harm", ["cut", "empty", "noise", "longer"])
def test_torn_entries_are_made_anew(six, harm):
    prepare(request_for(six))
    path, *_ = sorted(entries(six.parent / ".cache"))
    whole, sound = path.read_bytes(), read_sound(path)
    path.write_bytes({"cut": whole[:-7], "empty": b"", "noise": os.urandom(500), "longer": whole + b"x"}[harm])
    prepared = prepare(request_for(six))
    assert (prepared.made, prepared.kept) == (1, 5)
    np.testing.assert_array_equal(read_sound(path), sound)


@pytest.mark.parametrize("harm", ["cut", "noise", "pickle", "flipped"])
def test_a_torn_index_is_made_anew_and_never_run(six, harm, tmp_path):
    first = prepare(request_for(six))
    path = index_path(six.parent / ".cache", request_for(six).key())

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    whole = path.read_bytes()
    flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
    harmed = {"cut": whole[:-9], "noise": os.urandom(99), "pickle": pickle.dumps(Evil()), "flipped": flipped}
    path.write_bytes(harmed[harm])
    assert Index.read(path) is None
    second = prepare(request_for(six))
    assert second.made == 0 and second.index.fingerprint() == first.index.fingerprint()
    assert not (tmp_path / "ran").exists()


def test_an_index_whose_ends_lie_outside_is_refused(six):
    path = index_path(six.parent / ".cache", request_for(six).key())
    index = prepare(request_for(six)).index
    index.arrays["ids_ends"] = index.arrays["ids_ends"] + 5
    index.write(path)
    assert Index.read(path) is None


def test_what_cannot_be_used_is_left_out_with_its_reason(six, tmp_path):
    wavs = six.parent / "wavs"
    write_wav(wavs / "silence.wav", np.zeros(RATE, np.float32), RATE)
    write_wav(wavs / "short.wav", tone(0.2, 50), RATE)
    write_wav(wavs / "long.wav", tone(3, 51), RATE)
    write_wav(wavs / "fast.wav", tone(0.5, 52), RATE)
    (wavs / "text.wav").write_text("this is no sound", encoding="utf-8")
    (wavs / "empty.wav").write_bytes(b"")
    (wavs / "torn.wav").write_bytes((wavs / "000.wav").read_bytes()[:9000])
    shutil.copy(wavs / "000.wav", wavs / "copy.wav")
    import soundfile

    soundfile.write(wavs / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    names = ["silence", "short", "long", "text", "empty", "torn", "copy", "nan"]
    more = [*(f"{name}|words" for name in names), "fast|" + "many words " * 9, "001|again", "gone|x", "004|"]
    six.write_text(six.read_text(encoding="utf-8") + "\n".join(more) + "\n", encoding="utf-8")
    prepared = prepare(request_for(six, max_seconds=2.0))
    assert (prepared.rows, len(prepared.index)) == (18, 6)
    said = "\n".join(prepared.lines())
    for reason in (
        "silent",
        "shorter than 0.37 s",
        "longer than 2 s (--data.max_seconds)",
        "too short for its text: fast (row 15) (43 frames for",
        "NaN",
        "empty file",
        "the same sound as another recording: copy",
        "the same recording a second time",
        "no such file: gone",
        "empty text",
    ):
        assert reason in said
    assert prepared.left_out.total == 12
    assert read_record(six.parent / ".cache")["left_out"]["no such file"] == {"count": 1, "names": ["gone (row 17)"]}


def test_many_rows_left_out_are_said_loudly(six, caplog):
    six.write_text(six.read_text(encoding="utf-8") + "gone|x\n", encoding="utf-8")
    with caplog.at_level("INFO"):
        prepare(request_for(six)).log_lines()
    assert "MANY ROWS ARE LEFT OUT: 1 of 7" in caplog.text


def test_a_data_set_of_which_nothing_is_left_is_an_error_that_says_why(tmp_path):
    path = tmp_path / "metadata.csv"
    path.write_text("a.wav|x\nb.wav|\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"nothing of .* can be trained on") as caught:
        prepare(request_for(path))
    assert "2 no such file: a.wav (row 1), b.wav (row 2)" in caught.value.why


def test_ids_are_taken_as_given_and_those_beyond_the_embedding_left_out(six):
    ids = ["1 0 20 0 2", "1 0 255 0 2", "1 0 256 0 2", "1 5 2", "0", "7"]
    lines = [f"{number:03d}.wav|text|{part}" for number, part in enumerate(ids)]
    six.write_text("\n".join(lines), encoding="utf-8")
    prepared = prepare(request_for(six, dataset_type="phoneme_ids"))
    assert [clip.ids for clip in prepared.index][:2] == [(1, 0, 20, 0, 2), (1, 0, 255, 0, 2)]
    assert prepared.left_out.lines() == ["1 a phoneme id that is not below num_symbols: 002.wav (row 3) (256)"]


def test_unknown_phonemes_are_counted_and_named_each_time(six):
    six.write_text("000.wav|a☃b☃\n001.wav|☂\n002.wav|fine\n", encoding="utf-8")
    for _ in range(2):  # the second time the phonemes come from the index
        prepared = prepare(request_for(six))
        assert prepared.missing == {"☃": 2, "☂": 1}
        assert prepared.left_out.lines() == ["1 nothing in its text is spoken: 001.wav (row 2)"]
        assert "'☃' (U+2603) 2 times" in "\n".join(prepared.lines())
        assert [len(clip.ids) for clip in prepared.index] == [2 * 2 + 3, 2 * 4 + 3]


def test_a_table_of_ones_own_and_too_few_symbols(six, tmp_path):
    table = {"_": 0, "^": 1, "$": 2, **{letter: [3 + number] for number, letter in enumerate("nteowh rfiuvsxgl")}}
    (tmp_path / "table.json").write_text(json.dumps(table), encoding="utf-8")
    prepared = prepare(request_for(six, phonemes_path=tmp_path / "table.json", num_symbols=20))
    assert prepared.config.phoneme_id_map["h"] == (8,) and max(max(clip.ids) for clip in prepared.index) < 20
    with pytest.raises(UserError, match="num_symbols is 20"):
        prepare(request_for(six, num_symbols=20))
    with pytest.raises(UserError, match="table"):
        prepare(request_for(six, phonemes_path=tmp_path / "table.json", num_symbols=10))


def test_the_config_says_what_the_data_set_was_prepared_with(tmp_path):
    path = write_data_set(tmp_path / "set", 6, speakers=3)
    options = {"num_speakers": 4, "hop_length": 200, "voice_name": "mine", "quality": "low", "sample_rate": 16000}
    prepared = prepare(request_for(path, **options))
    said = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    assert said["audio"] == {"sample_rate": 16000, "quality": "low"}
    assert (said["hop_length"], said["num_speakers"], said["dataset"]) == (200, 4, "mine")
    assert said["speaker_id_map"] == {"speaker0": 0, "speaker1": 1, "speaker2": 2}
    assert said["language"]["code"] == "en_US"
    assert [clip.speaker for clip in prepared.index] == [0, 1, 2, 0, 1, 2]
    assert any("will not learn to speak" in hint for hint in prepared.hints)


def test_a_file_that_is_no_config_is_not_overwritten(six):
    with pytest.raises(UserError):
        prepare(request_for(six, config_path=six))
    assert six.read_text(encoding="utf-8").startswith("000.wav|")
    (six.parent / "package.json").write_text('{"name": "x"}', encoding="utf-8")
    with pytest.raises(UserError, match="will not overwrite"):
        prepare(request_for(six, config_path=six.parent / "package.json"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("sample_rate", 100),
        ("dataset_type", "speech"),
        ("max_seconds", 0.1),
        ("max_seconds", float("nan")),
        ("num_speakers", 0),
        ("espeak_voice", " "),
        ("vowel_clusters", "[[1]]"),
        ("vowel_clusters", '[["a", "b"]]'),  # of characters
        ("phoneme_type", "runes"),
        ("phoneme_source", "thin air"),
        ("quality", "best"),
        ("max_phoneme_ids", 0),
        ("workers", 0),
        ("cache_dir", Path(__file__)),
    ],
)
def test_options_that_make_no_sense_are_refused(six, option, value):
    with pytest.raises(UserError):
        prepare(request_for(six, **{option: value}))


def test_silence_around_speech_is_cut_and_speech_is_not():
    speech = read_audio(SAMPLES / "conf-invalid.flac", RATE)[0]
    rest = np.zeros(2 * RATE, np.float32)
    padded = np.concatenate((rest, speech, rest))
    wav = Path(os.environ["FISH_SPEECH_CACHE"]) / "padded.wav"
    write_wav(wav, padded, RATE)
    bare, _ = prepared_sound(wav, Preparation(RATE, True, 0.0, 0.0))
    kept, found = prepared_sound(wav, Preparation(RATE, True))
    assert found and len(kept) <= len(speech) + 0.6 * RATE
    assert len(kept) - len(bare) == pytest.approx(0.5 * RATE, abs=2)
    loud = np.flatnonzero(np.abs(speech) > 0.1)
    start = next(at for at in range(len(padded)) if np.array_equal(padded[at : at + 2000], speech[loud[0] :][:2000]))
    assert float(np.abs(padded[: start - 100]).max()) <= float(np.abs(kept).max())
    assert np.square(kept).sum() == pytest.approx(np.square(padded).sum(), rel=0.01)


def test_a_sound_without_speech_is_not_trimmed_and_that_is_said(six):
    prepared = prepare(request_for(six, trim_silence=True))
    assert any("no speech was found in" in hint for hint in prepared.hints)
    assert prepared.index.arrays["samples"][0] == round(0.6 * RATE)


def test_margins_do_not_reach_beyond_the_recording():
    whole = read_audio(SAMPLES / "conf-invalid.flac")[0]
    sound, _ = prepared_sound(SAMPLES / "conf-invalid.flac", Preparation(16000, True, 99.0, 99.0))
    assert abs(len(sound) - len(read_audio(SAMPLES / "conf-invalid.flac", 16000)[0])) <= 1 and len(whole)


def test_several_processes_prepare_what_one_does(tmp_path):
    path = write_data_set(tmp_path / "set", 50, seconds=0.4)
    alone = prepare(request_for(path, cache_dir=tmp_path / "one", workers=1))
    together = prepare(request_for(path, cache_dir=tmp_path / "two", workers=2))
    assert alone.index.fingerprint() == together.index.fingerprint()
    assert together.made == 50


def test_two_runs_at_the_same_time_harm_nothing(tmp_path):
    path = write_data_set(tmp_path / "set", 12)
    command = [sys.executable, "-m", "piper_train.prepare", "--csv-path", str(path), "--cache-dir", str(tmp_path / "c")]
    command += ["--config-path", str(tmp_path / "config.json"), "--espeak-voice", "en-us", "--phoneme-type", "text"]
    command += ["--no-trim-silence"]
    runs = [subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    after = prepare(request_for(path, cache_dir=tmp_path / "c", config_path=tmp_path / "config.json"))
    assert (after.made, after.kept, len(after.index)) == (0, 12, 12)
    assert not list((tmp_path / "c").rglob(".partial-*"))


def test_what_a_killed_run_left_is_removed(six):
    cache = six.parent / ".cache"
    prepare(request_for(six))
    (cache / "audio" / ".partial-999999999-x.safetensors").write_bytes(b"x")
    prepare(request_for(six))
    assert not list(cache.rglob(".partial-*"))


def test_preparing_holds_one_sound_at_a_time(tmp_path):
    path = write_data_set(tmp_path / "set", 30, seconds=4.0)
    total = 30 * 4.15 * RATE * 4  # bytes of all sounds

    tracemalloc.start()
    prepared = prepare(request_for(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(prepared.index) == 30
    assert peak < 0.5 * total, f"{peak / 1e6:.1f} MB of {total / 1e6:.1f} MB of sound"


def test_packed_phonemes_come_back():
    sentences = [["h", "ə", "l"], [], ["aɪ", " ", "."]]
    assert unpack(pack(sentences)) == sentences
    assert unpack(pack([])) == []


def test_facts_of_a_sound_that_is_not_there_are_an_error_one_can_catch(tmp_path):
    from piper_train.data.entries import Torn

    with pytest.raises(Torn):
        read_facts(tmp_path / "none.safetensors")


@pytest.mark.skipif(importlib.util.find_spec("piper") is None, reason="piper-tts is not installed")
def test_real_speech_gets_espeaks_phonemes_and_loses_its_silence(tmp_path):
    lines = []
    for name in ("conf-invalid", "auth-incorrect", "agent-newlocation"):
        shutil.copy(SAMPLES / f"{name}.flac", tmp_path)
        lines.append(f"{name}|{(SAMPLES / f'{name}.txt').read_text(encoding='utf-8').strip()}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    request = request_for(tmp_path / "metadata.csv", phoneme_type=None, trim_silence=True)
    prepared = prepare(request)
    assert len(prepared.index) == 3 and prepared.phonemes.startswith("piper-tts")
    assert "ˈ" in prepared.index[0].phonemes
    again = prepare(request)
    assert again.index.fingerprint() == prepared.index.fingerprint()
