"""prepare_dataset.py on whatever people have: every form of sound, hostile names, texts of every kind, hours of it.

Whatever comes in, the run ends with a true exit code and without a traceback, every input file has a row in the manifest,
every second is accounted for, what is kept is whole, and the input folders are as they were.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from .prepare_material import (
    FFMPEG,
    check_set,
    clock,
    encode,
    named,
    prepare,
    rows_of,
    save,
    sound,
    state,
    subtitles,
    summary_of,
    talks,
)
from .scripts import contents, refuse, run, start

SCRIPT = "prepare_dataset.py"
POSIX = pytest.mark.skipif(os.name == "nt", reason="needs names and links of POSIX")


# Forms of sound

PCM = {  # file: rate in Hz, channels, how it is stored
    "8-bit.wav": (16000, 1, {"subtype": "PCM_U8"}),
    "24-bit.wav": (48000, 2, {"subtype": "PCM_24"}),
    "32-bit.wav": (44100, 1, {"subtype": "PCM_32"}),
    "float.wav": (22050, 1, {"subtype": "FLOAT"}),
    "double.wav": (22050, 1, {"subtype": "DOUBLE"}),
    "a-law.wav": (8000, 1, {"subtype": "ALAW"}),
    "mu-law.wav": (8000, 1, {"subtype": "ULAW"}),
    "adpcm.wav": (22050, 1, {"subtype": "IMA_ADPCM"}),
    "extensible.wav": (44100, 6, {"format": "WAVEX", "subtype": "PCM_24"}),
    "eight channels.wav": (32000, 8, {}),
    "8 kHz.wav": (8000, 1, {}),
    "11 kHz.aiff": (11025, 1, {}),
    "12 kHz.au": (12000, 1, {}),
    "88 kHz.flac": (88200, 1, {"subtype": "PCM_24"}),
    "96 kHz.caf": (96000, 2, {}),
    "192 kHz.flac": (192000, 1, {"subtype": "PCM_24"}),
    "192 kHz float.w64": (192000, 2, {"subtype": "FLOAT"}),
    "big.rf64": (44100, 1, {}),
    "vorbis.ogg": (44100, 2, {}),
    "opus.opus": (48000, 1, {"format": "OGG", "subtype": "OPUS"}),
    "mpeg.MP3": (44100, 1, {"format": "MP3"}),
    "wrong suffix.mp3": (24000, 1, {"format": "WAV"}),
    "tenth of a second.wav": (22050, 1, {}),
}
BROKEN = {  # file: the reason that must be given
    "empty.wav": "no samples",
    "zero bytes.wav": "empty file",
    "torn.wav": "torn or damaged",
    "torn.flac": "torn or damaged",
    "torn.ogg": "torn or damaged",
    "silent.wav": "silent",
    "nan.wav": "NaN or infinite",
    "infinite.wav": "NaN or infinite",
    "text.wav": "not audio",
    "playlist.mp4": "not audio",
    "header only.wav": "",
    "huge rate.wav": "not usable",
    "no text.wav": "no transcript",
    "blank text.wav": "empty transcript",
    "binary text.wav": "transcript",
    "another text.wav": "text too long",
}


def write_forms(folder: Path) -> None:
    for seed, (name, (rate, channels, how)) in enumerate(PCM.items()):
        mono = sound(0.1 if name.startswith("tenth") else 0.6, seed, rate)
        text = "Yes." if name.startswith("tenth") else "Some words."
        save(folder / name, mono if channels == 1 else np.stack([mono] * channels, 1), rate, text, **how)


def write_broken(folder: Path) -> None:
    for seed, name in enumerate(BROKEN):
        save(folder / name, sound(0.6, 100 + seed, 22050), 22050, format=name[-4:].strip(".").replace("mp4", "wav"))
    save(folder / "empty.wav", np.zeros(0), 22050)
    (folder / "zero bytes.wav").write_bytes(b"")
    for name in ("torn.wav", "torn.flac", "torn.ogg"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) * 9 // 10])
    save(folder / "silent.wav", np.zeros(22050), 22050)
    save(folder / "nan.wav", np.where(np.arange(9000) == 8000, np.nan, 0.1), 22050, subtype="FLOAT")
    save(folder / "infinite.wav", np.where(np.arange(9000) == 8000, np.inf, 0.1), 22050, subtype="DOUBLE")
    (folder / "text.wav").write_text("this is no sound at all", encoding="utf-8")
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", encoding="utf-8")
    (folder / "header only.wav").write_bytes((folder / "header only.wav").read_bytes()[:30])
    data = (folder / "huge rate.wav").read_bytes()
    (folder / "huge rate.wav").write_bytes(data[:24] + (0x7FFFFFFF).to_bytes(4, "little") + data[28:])
    (folder / "no text.txt").unlink()
    (folder / "blank text.txt").write_text(" \n\t\n", encoding="utf-8")
    (folder / "binary text.txt").write_bytes(bytes(range(256)) * 9)
    save(folder / "another text.wav", sound(0.6, 99, 22050), 22050, "All the words of a paragraph. " * 40)


@pytest.fixture(scope="module")
def forms(tmp_path_factory) -> Path:
    """A folder in which recordings of every form were prepared into `out`, those that are broken among them."""
    folder = tmp_path_factory.mktemp("forms")
    write_forms(folder / "in")
    write_broken(folder / "in")
    result = prepare(folder, "--input", "in", "--output", "out", "--report", code=1)
    assert f"this run: {len(PCM)} of {len(PCM) + len(BROKEN)} recordings, {len(BROKEN)} left out" in result.stdout
    return folder


def test_every_form_of_sound_becomes_a_clip_and_what_is_broken_is_explained(forms):
    check_set(forms / "out", [forms / "in" / name for name in (*PCM, *BROKEN)])
    rows = named(forms / "out")
    assert {name for name, row in rows.items() if row["clip"] is not None} == set(PCM)
    for name, (rate, _, _) in PCM.items():
        assert rows[name]["sample_rate"] == rate
        assert rows[name]["duration_s"] == pytest.approx(0.1 if name.startswith("tenth") else 0.6, abs=0.06), name
        assert rows[name]["lufs"] == pytest.approx(-23, abs=0.1), name
    for name, reason in BROKEN.items():
        assert reason in rows[name]["left_out"], rows[name]["left_out"]
    assert "passwd" not in (forms / "out/manifest.jsonl").read_text(encoding="utf-8")


def test_the_report_is_one_page_that_names_every_reason(forms):
    page = (forms / "out/report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    for reason in summary_of(forms / "out")["left_out"]:
        assert reason in page


def test_the_same_command_again_does_nothing_twice_and_changes_nothing(forms):
    def made() -> dict[bytes, tuple[object, ...]]:
        return {name: kept for name, kept in state(forms / "out").items() if name.endswith((b".wav", b".lab", b"l"))}

    before = made()
    result = prepare(forms, "--input", "in", "--output", "out", "--report", code=1)
    assert "recordings are done already" in result.stderr and f"this run: {len(PCM)} of" in result.stdout
    after = made()
    assert {name: kept[3] for name, kept in after.items()} == {name: kept[3] for name, kept in before.items()}
    clips = [name for name in before if name.endswith(b".wav")]
    assert clips and all(before[name] == after[name] for name in clips)  # not written again


@FFMPEG
def test_what_soundfile_cannot_read_goes_through_ffmpeg(tmp_path):
    made = {
        "m4a.m4a": ("-c:a", "aac"),
        "aac.aac": ("-c:a", "aac"),
        "wma.wma": ("-c:a", "wmav2"),
        "video.mp4": ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=1.2", "-c:v", "mpeg4", "-c:a", "aac"),
        "ac3.mka": ("-c:a", "ac3"),
    }
    for seed, (name, options) in enumerate(made.items()):
        encode(tmp_path / "in" / name, sound(1.2, seed, 44100), 44100, *options)
    torn = encode(tmp_path / "in/torn.m4a", sound(1.2, 9, 44100), 44100, "-c:a", "aac", "-movflags", "+faststart")
    torn.write_bytes(torn.read_bytes()[:6000])
    silent = tmp_path / "in/no sound.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=1", "-map", "1:v", "-c:v", "mpeg4")
    encode(silent, sound(0.2, 8, 44100), 44100, *picture)
    prepare(tmp_path, "--input", "in", "--output", "out", code=1)
    check_set(tmp_path / "out", [tmp_path / "in" / name for name in (*made, torn.name, silent.name)])
    rows = named(tmp_path / "out")
    assert {name for name, row in rows.items() if row["clip"] is not None} == set(made)
    assert all(rows[name]["duration_s"] == pytest.approx(1.2, abs=0.15) for name in made)
    assert rows["torn.m4a"]["left_out"].startswith(("torn or damaged", "not audio"))
    assert "no sound track" in rows["no sound.mp4"]["left_out"]


# Names and folders

NAMES = [
    "-rf.wav",
    "--output=evil.wav",
    "..\\x.wav",
    "..%2F..%2Fx.wav",
    "..／..∕x.wav",
    "...wav",
    "new\nline\r\tand tab.wav",
    "\x1b[31mred\x07.wav",
    "$(touch pwned) `touch pwned` ; touch pwned.wav",
    "<script>alert(1)</script>&quot;.wav".replace("/", "∕"),
    "%s %n {0}.wav",
    "n" * 251 + ".wav",
    "😀" * 62 + "ab.wav",
    "😀.wav",
    "👩‍👩‍👧.wav",
    "CON.wav",
    "nul.WAV",
    "take__0001.wav",
    "take.wav",
    "Take.wav",
    "take .wav",
    "take..wav",
    "é.wav",
    "\u202egnp.wav",
    "line\u2028separated\u2029and\x85.wav",
    "файл 录音 ملف.wav",
    "_.wav",
    "人" * 83 + ".wav",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A folder with hostile names, links and things that are no files, prepared into `out`."""
    folder = tmp_path_factory.mktemp("hostile")
    names = [name for name in NAMES if can_name(folder, name)]
    assert len(names) > 0.9 * len(NAMES)
    for seed, name in enumerate(names):
        save(folder / "in" / name, sound(0.4, seed, 16000), 16000, f"Words of {seed}.", format="WAV")
    for seed, raw in enumerate((b"caf\xe9 \xff.wav", b"\xed\xa0\x80.wav")):  # Latin-1; half of a surrogate pair
        with_bytes = os.fsdecode(raw)
        if can_name(folder, with_bytes):
            save(folder / "in" / with_bytes, sound(0.4, 60 + seed, 16000), 16000, f"Bytes {seed}.", format="WAV")
    save(folder / "in/sub/take.flac", sound(0.4, 70, 16000), 16000, "Below.")
    save(folder / "in/sub/../other\nvoice/take.wav", sound(0.4, 71, 16000), 16000, "Other.")
    (folder / "in/folder.wav").mkdir()
    (folder / "in/loop").symlink_to(folder / "in", target_is_directory=True)
    (folder / "in/sub/up").symlink_to("..", target_is_directory=True)
    (folder / "in/self.wav").symlink_to("self.wav")
    (folder / "in/gone.wav").symlink_to("nowhere/gone.wav")
    (folder / "in/device.wav").symlink_to("/dev/zero")
    os.mkfifo(folder / "in/pipe.wav")
    result = prepare(folder, "--input", "in", "--output", "out", "--report", code=1)
    assert "\x1b" not in result.stdout + result.stderr and "\x07" not in result.stderr
    before = contents(folder / "out")
    del before["report.html"]  # it has a date
    prepare(folder, "--input", "in", "--output", "out", code=1)
    assert before.items() <= contents(folder / "out").items()
    return folder


def can_name(folder: Path, name: str) -> bool:
    """Whether the file system takes a name."""
    try:
        (folder / name).touch(exist_ok=False)
        (folder / name).unlink()
    except OSError:
        return False
    return True


@POSIX
def test_hostile_names_become_safe_ones_with_their_own_words(hostile):
    found = [Path(root, name) for root, _, names in os.walk(hostile / "in") for name in names]
    sources = [path for path in found if path.suffix.lower() in (".wav", ".flac")]
    rows = check_set(hostile / "out", sources)
    spoilt = {
        "self.wav": "cannot be read",
        "gone.wav": "cannot be read",
        "device.wav": "not a file",
        "pipe.wav": "not a file",
    }
    for row in rows:
        name = row["source"].rpartition("/")[2]
        if name in spoilt:
            assert row["left_out"].startswith(spoilt[name])
        else:
            assert row["clip"] is not None, row
            source = next(
                path for path in sources if os.fsencode(path).decode("utf-8", "backslashreplace") == row["source"]
            )
            assert row["text"] == source.with_suffix(".txt").read_text(encoding="utf-8")
            assert all(c.isalnum() or c in "-_./" or unicodedata.category(c)[0] == "M" for c in row["clip"]), row[
                "clip"
            ]
            assert ".." not in row["clip"] and not row["clip"].split("/")[1].startswith("-")
    assert not list(hostile.rglob("pwned*")) and sorted(path.name for path in hostile.iterdir()) == ["in", "out"]
    assert sorted(path.name for path in (hostile / "out").iterdir() if path.is_dir()) == ["in", "other_voice", "sub"]


@POSIX
def test_names_in_the_report_are_text_and_nothing_else(hostile):
    page = (hostile / "out/report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "\x1b" not in page and "\x07" not in page


@POSIX
@pytest.mark.parametrize("name", ["-x.wav", "a\nb caf\udce9 😀.wav"], ids=ascii)
def test_an_input_and_an_output_of_any_name_can_be_given(tmp_path, name):
    if not can_name(tmp_path, name):
        pytest.skip("the file system does not take the name")
    save(tmp_path / "in" / name, sound(0.4, 1, 16000), 16000, format="WAV")
    output = f"out{name}"
    prepare(tmp_path, f"--input={tmp_path / 'in' / name}", f"--output={output}")
    assert len(check_set(tmp_path / output, [tmp_path / "in" / name])) == 1


@POSIX
def test_an_input_or_output_whose_name_is_too_long_is_refused(tmp_path):
    save(tmp_path / "in/a.wav", sound(0.4, 1, 16000), 16000)
    assert "inputs cannot be used" in refuse(SCRIPT, "--input", "x" * 300, "--output", "out", cwd=tmp_path)
    refuse(SCRIPT, "--input", "in", "--output", "x" * 300, cwd=tmp_path)
    refuse(SCRIPT, "--input", "in/a.wav/b", "--output", "out", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@POSIX
def test_what_may_not_be_read_is_told_and_the_rest_is_prepared(tmp_path):
    for seed, name in enumerate(("good", "closed", "closed text")):
        save(tmp_path / f"in/{name}.wav", sound(0.4, seed, 16000), 16000)
    for name in ("closed.wav", "closed text.txt"):
        (tmp_path / "in" / name).chmod(0)
    if os.access(tmp_path / "in/closed.wav", os.R_OK):
        pytest.skip("permissions do not bind this user (root)")
    prepare(tmp_path, "--input", "in", "--output", "out", code=1)
    check_set(tmp_path / "out", (tmp_path / "in").glob("*.wav"))
    rows = named(tmp_path / "out")
    assert rows["closed.wav"]["left_out"].startswith("cannot be read")
    assert rows["closed text.wav"]["left_out"].startswith("unreadable transcript")
    assert rows["good.wav"]["clip"] == "in/good.wav"


@POSIX
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100], ids=oct)
def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path, mode):
    save(tmp_path / "in/good.wav", sound(0.4, 1, 16000), 16000)
    save(tmp_path / "in/closed/a.wav", sound(0.4, 2, 16000), 16000)
    (tmp_path / "in/closed").chmod(mode)
    try:
        if os.access(tmp_path / "in/closed/a.wav", os.R_OK) and os.access(tmp_path / "in/closed", os.R_OK):
            pytest.skip("permissions do not bind this user (root)")
        if mode == 0o400:  # the names are known, and that is all
            run(SCRIPT, "--input", "in", "--output", "out", "--workers", 1, cwd=tmp_path, code=1)
            assert named(tmp_path / "out")["a.wav"]["left_out"].startswith("cannot be read")
        else:
            assert "closed" in refuse(SCRIPT, "--input", "in", "--output", "out", cwd=tmp_path)
    finally:
        (tmp_path / "in/closed").chmod(0o700)


def test_recordings_of_one_name_in_several_folders_and_forms_stay_apart(tmp_path):
    names = ["anna/a.wav", "anna/a.flac", "anna/more/a.wav", "anna/more/A.flac", "ben/a.wav"]
    for seed, name in enumerate(names):
        save(tmp_path / "in" / name, sound(0.3 + seed / 10, seed, 16000), 16000)
    prepare(tmp_path, "--input", "in", "--output", "out")
    rows = check_set(tmp_path / "out", [tmp_path / "in" / name for name in names])
    assert {Path(row["source"]).relative_to(tmp_path / "in").as_posix(): row["duration_s"] for row in rows} == {
        name: pytest.approx(0.3 + seed / 10) for seed, name in enumerate(names)
    }
    assert sorted(row["clip"] for row in rows) == sorted(
        ["anna/a.wav", "anna/a-2.wav", "anna/A-3.wav", "anna/a-4.wav", "ben/a.wav"]
    )


def test_two_inputs_add_to_one_set_as_two_speakers(tmp_path):
    for seed, voice in enumerate(("one", "two")):
        for number in range(2):
            save(
                tmp_path / f"in/{voice}/{number}.wav", sound(0.4, 2 * seed + number, 16000), 16000, f"{voice} {number}."
            )
    prepare(tmp_path, "--input", "in/one", "--output", "out", "--speaker", "speaker1")
    first = {path: data for path, data in state(tmp_path / "out").items() if path.endswith((b".wav", b".lab"))}
    prepare(tmp_path, "--input", "in/two", "--output", "out", "--speaker", "speaker2")
    check_set(tmp_path / "out", (tmp_path / "in").rglob("*.wav"))
    assert first.items() <= state(tmp_path / "out").items()
    assert summary_of(tmp_path / "out")["speaker_totals"].keys() == {"speaker1", "speaker2"}
    assert sorted(row["clip"] for row in rows_of(tmp_path / "out")) == [
        f"speaker{voice}/{number}.wav" for voice in (1, 2) for number in (0, 1)
    ]


# Texts


def test_texts_of_sets_and_of_long_recordings_are_found_in_every_form(tmp_path):
    folder = tmp_path / "in"
    for seed in range(3):
        save(folder / f"lj/wavs/LJ{seed}.wav", sound(0.4, seed, 16000), 16000, None)
        save(folder / f"crowd/{seed}.flac", sound(0.4, 10 + seed, 16000), 16000, None)
    lines = [f"LJ{seed}|Here is Mr. Smith, number {seed}.|Here is Mister Smith, number {seed}." for seed in range(2)]
    (folder / "lj/metadata.csv").write_text("\n".join(lines), encoding="utf-8")  # LJ2 is not in it
    lines = [f"{seed}.flac|{'eve' if seed else 'dan'}|Words of number {seed} here." for seed in range(3)]
    (folder / "crowd/metadata.csv").write_text("\n".join([*lines, "../../x.wav|dan|Outside of it."]), encoding="utf-8")
    made = talks(folder / "talks", ["vtt", "vtt", "vtt"], clips=9)
    as_srt = [
        f"{number}\n{clock(clip.start_s, ',')} --> {clock(clip.end_s, ',')}\n{clip.text}\n"
        for number, clip in enumerate(made[1].clips, 1)
    ]
    segments = [{"start": clip.start_s, "end": clip.end_s, "text": f" {clip.text}"} for clip in made[2].clips]
    (folder / "talks/talk1.srt").write_text("\n".join(as_srt), encoding="utf-8")
    whisper = {"text": " ".join(clip.text for clip in made[2].clips), "segments": segments, "language": "en"}
    (folder / "talks/talk2.json").write_text(json.dumps(whisper), encoding="utf-8")
    for name in ("talk1.vtt", "talk2.vtt"):
        (folder / "talks" / name).unlink()
    prepare(tmp_path, "--input", "in", "--output", "out", code=1)
    sources = [path for path in folder.rglob("*") if path.suffix in (".wav", ".flac")]
    rows = check_set(tmp_path / "out", sources)
    short = {row["source"].rpartition("/")[2]: row for row in rows if "talks" not in row["source"]}
    assert [short[f"LJ{seed}.wav"]["text"] for seed in range(2)] == [
        f"Here is Mister Smith, number {seed}." for seed in range(2)
    ]
    assert short["LJ2.wav"]["left_out"].startswith("no transcript")
    assert [short[f"{seed}.flac"]["clip"] for seed in range(3)] == ["dan/0.wav", "eve/1.wav", "eve/2.wav"]
    for number, (recording, kind) in enumerate(zip(made, ("vtt", "srt", "whisper-json"))):
        own = [row for row in rows if row["source"].endswith(f"talk{number}.wav")]
        assert {row["transcript"] for row in own} == {kind} and len(own) > 1
        assert all(row["clip"] == f"talks/talk{number}__{at:04d}.wav" for at, row in enumerate(own, 1))
        assert " ".join(row["text"] for row in own) == " ".join(clip.text for clip in recording.clips)
        for row in own:  # each clip has the words that are spoken in it
            inside = [clip for clip in recording.clips if row["start_s"] <= clip.start_s < row["end_s"]]
            assert row["text"] == " ".join(clip.text for clip in inside)


# Hours


def peak_mb(cwd: Path, *arguments: object) -> float:
    """Run in one process and return the most memory that it held, MB."""
    process = start(SCRIPT, *arguments, "--workers", 1, cwd=cwd)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = (cwd / f"{SCRIPT}.out").read_text(encoding="utf-8")
    assert process.returncode == 0 and "Traceback" not in said, said
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs wait4 to learn a process's memory")
def test_five_hours_take_no_more_memory_than_ten_minutes(tmp_path):
    import soxr

    recording = talks(tmp_path / "unused", ["vtt"], clips=30)[0]
    speech = soxr.resample(recording.samples, recording.sample_rate, 8000).astype(np.float32)
    peaks = {}
    for name, minutes in (("short", 10), ("long", 300)):
        folder = tmp_path / name
        (folder / "in").mkdir(parents=True)
        times = round(minutes * 60 * 8000 / len(speech))
        with soundfile.SoundFile(folder / "in/talk.wav", "w", 8000, 1, "ULAW") as file:
            for number in range(times):
                file.write(speech * 10 ** (-(number % 10) / 20))
        # Clips of every tenth repetition have text and are written; the rest is found, planned, and left out.
        (folder / "in/talk.vtt").write_text(subtitles(recording, range(0, times, 10)), encoding="utf-8")
        peaks[name] = peak_mb(folder, "--input", "in", "--output", "out")
        rows = check_set(folder / "out", [folder / "in/talk.wav"])
        assert rows[0]["source_s"] == pytest.approx(times * len(speech) / 8000)
        assert rows[0]["source_s"] == pytest.approx(minutes * 60, rel=0.15)
        shutil.rmtree(folder)
    assert peaks["long"] - peaks["short"] < 150, peaks
