"""Audio files in and out: what is read, what is refused and why, and how loud it comes out."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fish_speech import audio
from fish_speech.audio import (
    AudioError,
    duration_s,
    find_audio,
    measure_lufs,
    normalize_loudness,
    read_audio,
    stream_audio,
    write_wav,
)

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")


def tone(seconds: float = 1.0, sample_rate: int = 16000, hz: float = 440.0, level: float = 0.25) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * sample_rate)) / sample_rate)).astype(np.float32)


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True)


def cut(path: Path, share: float = 0.6) -> Path:
    """Copy the first `share` of a file, as a broken download leaves it."""
    data = path.read_bytes()
    torn = path.with_name(f"torn-{path.name}")
    torn.write_bytes(data[: int(len(data) * share)])
    return torn


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("sample_rate", [8000, 192000])
def test_any_sample_format_comes_back_as_the_same_sound(tmp_path, subtype, sample_rate):
    soundfile.write(tmp_path / "a.wav", tone(0.1, sample_rate), sample_rate, subtype=subtype)
    waveform, rate = read_audio(tmp_path / "a.wav")
    assert rate == sample_rate and waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, tone(0.1, sample_rate), atol=1 / 128 if subtype == "PCM_U8" else 1 / 32768)


def test_channels_are_averaged_or_kept(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), 0.5 * tone(), 0 * tone()], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav")[0], 0.5 * tone(), atol=1e-7)
    assert read_audio(tmp_path / "a.wav", mono=False)[0].shape == (16000, 3)


def test_resampling_keeps_pitch_and_level(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(), 16000)
    waveform, rate = read_audio(tmp_path / "a.flac", sample_rate=44100)
    assert (len(waveform), rate) == (44100, 44100)
    np.testing.assert_allclose(waveform[2000:-2000], tone(1.0, 44100)[2000:-2000], atol=1e-3)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["-dash.m4a", "concat:a.m4a", "new\nline.webm", "é😀.wma", "V.MKV", "x.aac", "y.opus"])
def test_other_formats_and_hostile_names_are_read(tmp_path, monkeypatch, name):
    soundfile.write(tmp_path / "a.wav", tone(2.0, 48000), 48000)
    ffmpeg("-i", tmp_path / "a.wav", f"file:{tmp_path / name}")
    monkeypatch.chdir(tmp_path)  # so that the name itself reaches ffmpeg, with nothing before it
    waveform, rate = read_audio(Path(name))
    assert rate == 48000 and abs(len(waveform) / rate - 2.0) < 0.06  # codecs pad to whole frames
    assert abs(duration_s(Path(name)) - 2.0) < 0.06
    assert abs(20 * np.log10(np.std(waveform[8000:80000]) / np.std(tone(2.0, 48000)))) < 1  # dB


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "mp3", "ogg", "opus", "mp4", "webm", "aac"])
def test_torn_files_are_refused(tmp_path, suffix):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", 0.1 * rng.standard_normal(3 * 44100), 44100)
    if suffix != "wav":
        ffmpeg("-i", tmp_path / "a.wav", "-movflags", "+faststart", tmp_path / f"a.{suffix}")
    assert len(read_audio(tmp_path / f"a.{suffix}")[0]) > 0
    with pytest.raises(AudioError, match="torn or damaged"):
        read_audio(cut(tmp_path / f"a.{suffix}"))


def test_a_wav_of_unknown_length_from_a_pipe_is_whole(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "pipe.wav").write_bytes(data)
    assert len(read_audio(tmp_path / "pipe.wav")[0]) == 16000


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty file"), (b"RIFF", "not audio"), (b"hello " * 999, "not audio"), (None, "no such file")],
)
def test_what_is_not_audio_says_so_in_one_line(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(tmp_path / "x.wav")
    assert "\n" not in caught.value.reason and str(tmp_path) not in caught.value.reason
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason


@needs_ffmpeg
@pytest.mark.parametrize("content", ["#EXTM3U\n#EXTINF:1,\n{path}\n", "ffconcat version 1.0\nfile {path}\n"])
def test_a_playlist_opens_no_other_file(tmp_path, content):
    soundfile.write(tmp_path / "secret.wav", tone(), 16000)
    (tmp_path / "x.mp4").write_text(content.format(path=tmp_path / "secret.wav"), encoding="utf-8")
    with pytest.raises(AudioError, match="not audio"):
        read_audio(tmp_path / "x.mp4")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_both_ways(tmp_path, bad):
    waveform = tone()
    waveform[8000] = bad
    soundfile.write(tmp_path / "a.wav", waveform, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"NaN or infinite samples: the first at 0\.500 s"):
        read_audio(tmp_path / "a.wav")
    with pytest.raises(ValueError, match="NaN"):
        write_wav(tmp_path / "b.wav", waveform, 16000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_no_samples_a_folder_and_too_long_are_refused(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "long.wav", tone(2.0), 16000)
    (tmp_path / "folder.wav").mkdir()
    for name, reason in [("none.wav", "no samples"), ("long.wav", "too long"), ("folder.wav", "not a file")]:
        with pytest.raises(AudioError, match=reason):
            read_audio(tmp_path / name, max_duration_s=1.5)


def test_without_ffmpeg_the_reason_names_it(tmp_path, monkeypatch):
    (tmp_path / "x.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99))
    monkeypatch.setattr(audio.shutil, "which", lambda name: None)
    with pytest.raises(AudioError, match="ffmpeg program is not installed"):
        read_audio(tmp_path / "x.m4a")


def test_find_audio_is_sorted_recursive_and_survives_link_loops(tmp_path):
    for name in ["b/2.FLAC", "b/1.wav", "a.Mp3", "c/x.txt", ".partial-1-a.wav", "._a.wav", "b.wav"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    names = [path.relative_to(tmp_path).as_posix() for path in find_audio(tmp_path)]
    assert names == ["a.Mp3", "b/1.wav", "b/2.FLAC", "b.wav", "gone.wav"]


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=50))
def test_16_bit_samples_survive_writing_and_reading_unchanged(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "exact.wav"
    assert write_wav(path, np.array(values, dtype=np.float32) / 32768, 22050) == 0
    assert (soundfile.read(path, dtype="int16")[0] == values).all()
    assert (read_audio(path)[0] * 32768 == values).all()


def test_clipped_samples_are_held_at_full_scale_and_counted(tmp_path):
    assert write_wav(tmp_path / "a.wav", np.array([0.0, 1.5, 1.0, -1.0, -2.0]), 16000) == 2
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [0, 32767, 32767, -32768, -32768]


def test_the_meter_reads_the_standards_reference_tone():
    # ITU-R BS.1770: a 997 Hz sine at full scale in one channel reads -3.01 LUFS; 0.1 LU is the meter's tolerance.
    assert measure_lufs(tone(5.0, 48000, 997, 1.0), 48000) == pytest.approx(-3.01, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(
    seconds=st.floats(0.05, 2.0),
    level_db=st.floats(-65, 30),
    target=st.floats(-36, -10),
    crest=st.integers(1, 400),
    seed=st.integers(0, 99),
)
@example(seconds=1.0, level_db=-60.0, target=-23.0, crest=1, seed=0)
def test_loudness_reaches_the_target_or_the_true_peak_limit(seconds, level_db, target, crest, seed):
    rng = np.random.default_rng(seed)
    waveform = rng.standard_normal(round(seconds * 16000)).astype(np.float32) * np.float32(10 ** (level_db / 20) * 0.2)
    waveform[::400] *= crest
    scaled, info = normalize_loudness(waveform, 16000, target, -1.0)
    measured = measure_lufs(scaled, 16000)
    if info.lufs_before is None:
        assert scaled is waveform
        return
    assert 20 * np.log10(audio.true_peak(scaled, 16000)) <= -1.0 + 1e-3  # float32 rounding
    assert info.lufs == pytest.approx(measured, abs=0.05)
    assert measured == pytest.approx(target, abs=0.1) or (info.limited and measured < target)


def test_a_silent_clip_is_left_as_it_is():
    for waveform in (np.zeros(16000, np.float32), np.zeros(10, np.float32), tone(level=1e-5)):
        scaled, info = normalize_loudness(waveform, 16000)
        assert scaled is waveform and info.lufs is None and info.gain_db == 0


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_streamed_file_is_what_the_whole_file_is(tmp_path, rate):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1_200_000, 2)).astype(np.float32)  # several blocks
    soundfile.write(tmp_path / "a.wav", noise, 44100)
    with stream_audio(tmp_path / "a.wav", rate) as blocks:
        streamed = list(blocks)
    assert len(streamed) > 2
    np.testing.assert_array_equal(np.concatenate(streamed), read_audio(tmp_path / "a.wav", rate)[0])
    with stream_audio(tmp_path / "a.wav", rate, max_duration_s=2.5) as blocks:
        first = np.concatenate(list(blocks))
    assert abs(len(first) - 2.5 * rate) <= 1
