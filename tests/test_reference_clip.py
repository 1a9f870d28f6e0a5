"""Which clip of a data set becomes the reference of a voice pack."""

from __future__ import annotations

import json
import logging
import shutil
import zlib

import numpy as np
import pytest

from fish_speech import reference_clip
from fish_speech.audio import read_audio
from fish_speech.errors import UserError
from fish_speech.reference_clip import choose_reference

from .conftest import REPO

CODEBOOKS, SIZE, RATE = 3, 64, 20.0
ALLISON = REPO / "samples" / "allison"


@pytest.fixture()
def deaf(monkeypatch):
    """No voices can be compared, as without the eval extra."""
    monkeypatch.setattr(reference_clip, "can_compare", lambda: False)


@pytest.fixture()
def data(tmp_path):
    return tmp_path / "data"


def add(data, name, seconds, text=None, **row):
    """Write codes and words of a clip, 15 characters a second unless given; `row` goes into the manifest."""
    path = data / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = round(seconds * RATE)
    np.save(
        path, np.random.default_rng(zlib.crc32(name.encode())).integers(0, SIZE, (CODEBOOKS, frames), dtype=np.int32)
    )
    text = ("so many words " * 40)[: round(15 * seconds)] if text is None else text
    path.with_suffix(".lab").write_text(text, encoding="utf-8")
    if row:
        given = {"source": f"/recordings/{name}.wav", "speaker": path.parent.name, "clip": f"{name}.wav", "text": text}
        with (data / "manifest.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**given, "duration_s": seconds, **row}) + "\n")


def choose(data, **options):
    return choose_reference(data, CODEBOOKS, SIZE, RATE, **options)


def test_a_clip_of_a_good_length_is_taken_before_others(data, deaf):
    for number, seconds in enumerate((0.5, 1.0, 2.9, 5.0, 10.6, 25.0)):
        add(data, f"anna/{number}", seconds)
    found = choose(data)
    assert (found.source, found.seconds, found.speaker) == ("anna/3", 5.0, "anna")
    assert found.codes.dtype == np.int32 and found.codes.shape == (CODEBOOKS, 100)
    np.testing.assert_array_equal(found.codes, np.load(data / "anna/3.npy"))
    assert found.text == (data / "anna/3.lab").read_text(encoding="utf-8").strip()


def test_without_a_clip_of_a_good_length_the_nearest_are_taken_but_nothing_over_30_s(data, deaf):
    add(data, "anna/long", 31)
    assert choose(data) is None
    add(data, "anna/short", 0.6)
    assert choose(data).source == "anna/short"


@pytest.mark.parametrize(
    "fault",
    [
        {"clipped_share": 0.01},
        {"snr_db": 3.0},
        {"bandwidth_hz": 4000},
        {"confidence": 0.2},
        {"speaker_outlier": True},
        {"duplicate_of": "anna/other"},
        {"dnsmos": {"overall": 1.2}},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_a_clip_that_the_manifest_finds_fault_with_is_passed_over(data, deaf, fault):
    for number in range(5):
        add(data, f"anna/{number}", 5.0 + number / 10, **{"snr_db": 30.0 + number, **({} if number == 2 else fault)})
    assert choose(data).source == "anna/2"


def test_of_clips_that_all_have_a_fault_the_least_bad_is_taken(data, deaf):
    for number, snr in enumerate((2.0, 14.0, -5.0)):
        add(data, f"anna/{number}", 5.0, snr_db=snr)
    assert choose(data).source == "anna/1"


def test_text_that_cannot_be_what_is_spoken_is_passed_over(data, deaf):
    for number in range(4):
        add(data, f"anna/{number}", 6.0, text="Hm." if number != 3 else None)
    assert choose(data).source == "anna/3"


def test_a_corrected_transcript_counts_not_the_manifest(data, deaf):
    add(data, "anna/one", 5.0, text="What was written first.", snr_db=30.0)
    (data / "anna/one.lab").write_text("What a person corrected later.", encoding="utf-8")
    assert choose(data).text == "What a person corrected later."


def test_the_cleanest_is_taken_without_the_extra_and_it_is_said_what_the_extra_would_do(data, deaf, caplog):
    for number, snr in enumerate((20.0, 40.0, 30.0)):
        add(data, f"anna/{number}", 5.0, snr_db=snr)
    with caplog.at_level(logging.INFO):
        found = choose(data)
    assert (found.source, found.snr_db, found.similarity) == ("anna/1", 40.0, None)
    assert "highest SNR of 3 clips" in found.why and "pip install" in caplog.text


def test_the_speaker_with_the_most_seconds_is_taken_unless_another_is_asked_for(data, deaf, caplog):
    for number in range(3):
        add(data, f"ben/{number}", 4.0)
    add(data, "anna/one", 9.0)
    with caplog.at_level(logging.INFO):
        assert choose(data).speaker == "ben"
    assert "2 speakers: the reference is of ben" in caplog.text
    assert choose(data, speaker="anna").source == "anna/one"
    with pytest.raises(UserError, match=r"no speaker carl[\s\S]*ben, anna"):
        choose(data, speaker="carl")


def test_a_choice_is_the_same_every_time_and_copies_count_once(data, deaf):
    for number in range(60):
        add(data, f"anna/{number}", 3.0 + number % 7)
    first = choose(data)
    assert {choose(data).source for _ in range(3)} == {first.source}
    assert "of 40 clips" in first.why
    only = data.parent / "only"
    (only / "anna").mkdir(parents=True)
    for number in range(6):
        shutil.copyfile(data / "anna/1.npy", only / f"anna/copy{number}.npy")
        shutil.copyfile(data / "anna/1.lab", only / f"anna/copy{number}.lab")
    assert "of 1 clips" in choose(only).why


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("object", np.array([{"a": 1}], dtype=object)),
        ("floats", np.zeros((CODEBOOKS, 100))),
        ("too large", np.full((CODEBOOKS, 100), SIZE, np.int32)),
        ("negative", np.full((CODEBOOKS, 100), -1, np.int32)),
        ("too few codebooks", np.zeros((CODEBOOKS - 1, 150), np.int32)),
    ],
)
def test_codes_that_are_none_are_never_a_reference(data, deaf, name, content, caplog):
    add(data, "anna/bad", 5.0)
    np.save(data / "anna/bad.npy", content, allow_pickle=True)
    assert choose(data) is None
    assert "no reference" in caplog.text
    add(data, "anna/good", 5.0)
    assert choose(data).source == "anna/good"


def test_torn_codes_and_missing_words_are_passed_over(data, deaf):
    for name in ("torn", "wordless", "mute", "good"):
        add(data, f"anna/{name}", 5.0)
    (data / "anna/torn.npy").write_bytes((data / "anna/torn.npy").read_bytes()[:-8])
    (data / "anna/wordless.lab").unlink()
    (data / "anna/mute.lab").write_text("  \n", encoding="utf-8")
    assert choose(data).source == "anna/good"


@pytest.mark.parametrize("line", ["not json\n", '{"source": null}\n', "[1]\n", "\xff\n", "[" * 100_000])
def test_a_manifest_that_cannot_be_read_hinders_nobody(data, deaf, line, caplog):
    add(data, "anna/one", 5.0)
    (data / "manifest.jsonl").write_bytes(line.encode("latin-1"))
    assert choose(data).source == "anna/one"
    assert "without the manifest" in caplog.text


def test_few_of_many_clips_are_opened(data, deaf, monkeypatch):
    for number in range(450):
        add(data, f"anna/{number:03d}", 4.0)
    opened = []
    read = reference_clip.read_codes
    monkeypatch.setattr(reference_clip, "read_codes", lambda path: opened.append(path) or read(path))
    assert choose(data) is not None
    assert len(opened) == 200


@pytest.mark.slow
def test_the_clip_nearest_to_the_mean_voice_is_taken_and_its_similarity_is_told(data):
    pytest.importorskip("resemblyzer", reason="the eval extra is not installed")
    from fish_speech.evaluation.similarity import SpeakerEncoder

    sounds = sorted(ALLISON.glob("*.flac"), key=lambda path: -path.stat().st_size)[4:8]
    for path in sounds:
        samples, rate = read_audio(path)
        add(data, f"anna/{path.stem}", len(samples) / rate)
        shutil.copyfile(path, data / f"anna/{path.name}")
    found = choose(data)
    encoder = SpeakerEncoder()
    voices = {path.stem: encoder.embed(*read_audio(path)) for path in sounds}
    mean = sum(voices.values())
    cosines = {name: float(voice @ mean / np.linalg.norm(mean)) for name, voice in voices.items()}
    assert len(voices) == 4 and found.source == f"anna/{max(cosines, key=cosines.get)}"
    assert found.similarity == pytest.approx(max(cosines.values()), abs=1e-4) and found.why.endswith("of 4 clips")


def test_clips_of_another_model_version_are_never_a_reference(data, deaf, caplog):
    sizes = (4096, *[1024] * 9)
    add(data, "anna/other", 5.0)
    np.save(data / "anna/other.npy", np.zeros((8, 100), np.int32))
    add(data, "anna/large", 5.0)
    np.save(data / "anna/large.npy", np.full((10, 100), 1024, np.int32))
    assert choose_reference(data, 10, sizes, RATE) is None
    assert "8 codebooks (as Fish Speech 1.5 has) instead of 10; codes of another codec" in caplog.text
    add(data, "anna/own", 5.0)
    codes = np.stack([np.full(100, size - 1, np.int32) for size in sizes])
    np.save(data / "anna/own.npy", codes)
    found = choose_reference(data, 10, sizes, RATE)
    assert found.source == "anna/own" and np.array_equal(found.codes, codes)
    assert choose_reference(data, 8, 1024, RATE).source == "anna/other"  # of 1.5, ten rows are none of its own
