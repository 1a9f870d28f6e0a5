"""What packing asks of clips: useless ones are left out, odd ones named, in any language, and no file breaks it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fish_speech.build_dataset import build, codec_of, is_current
from fish_speech.clip_checks import CodecFacts, Facts, judge, look_at
from fish_speech.datasets.sources import find_clips

ROOT = Path(__file__).parents[1]
RATE = 20.0  # frames per second of the sets made here
ENGLISH = "The weather was mild and the road lay empty before us in the light of evening while birds went home "
CHINESE = "今天的天气很好我们一起走到河边看见许多孩子在那里放风筝然后大家慢慢地走回家去吃晚饭"
LETTERS = 14.0  # spoken per second, spaces not counted
SYLLABLES = 5.0


def words(text: str, seconds: float, per_s: float) -> str:
    """So much of `text` as is spoken in that time."""
    letters, spoken = [], 0
    for letter in text * 100:
        if spoken >= seconds * per_s:
            break
        letters.append(letter)
        spoken += letter.isalpha()
    return "".join(letters)


def put(folder: Path, name: str, seconds: float, text: str | bytes, codes: np.ndarray | bytes | None = None) -> None:
    """Write a clip of so many seconds of random codes, or of the codes given, with its transcript."""
    folder.mkdir(parents=True, exist_ok=True)
    if codes is None:
        codes = np.random.default_rng(len(name)).integers(0, 1000, (3, round(seconds * RATE)), dtype=np.int32)
    if isinstance(codes, np.ndarray):
        np.save(folder / f"{name}.npy", codes, allow_pickle=True)
    else:
        (folder / f"{name}.npy").write_bytes(codes)
    (folder / f"{name}.lab").write_bytes(text if isinstance(text, bytes) else text.encode())


def put_record(data: Path, **record: object) -> None:
    """Write what extraction notes of the codec."""
    (data / ".codec.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture()
def data(tmp_path) -> Path:
    """Twelve good clips of 3 to 9 s, spoken at the usual rate give or take a fifth."""
    rng = random.Random(3)
    for number in range(12):
        seconds = 3 + number % 7
        put(
            tmp_path / "data/anna",
            f"good{number:02}",
            seconds,
            words(ENGLISH, seconds, LETTERS * rng.uniform(0.8, 1.2)),
        )
    put_record(tmp_path / "data", frame_rate=RATE, codebook_size=1000)
    return tmp_path / "data"


def of_numpy(dtype: str, shape: tuple[int, ...], fortran: bool, values: bytes) -> bytes:
    """A .npy file, as its header may be written by anybody."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode("utf-8", "replace")
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + values


FINE = words(ENGLISH, 4, LETTERS)
CODES = np.random.default_rng(0).integers(0, 1000, (3, 80))
POISON = {  # what the clip is, and what must be said of it
    "NaN": ((4, FINE, np.full((3, 80), np.nan, np.float32)), "of float32 with NaN; codes are 2 axes of whole numbers"),
    "half": ((4, FINE, CODES + 0.5), "of float64; codes"),
    "objects": ((4, FINE, np.array([[{}]], dtype=object)), "object|plain numbers"),
    "bool": ((4, FINE, CODES > 500), "of bool"),
    "negative": ((4, FINE, CODES - 1000), "values from -"),
    "other codec": ((4, FINE, CODES + 900), "codes of another codec, those of this one are below 1000"),
    "far too large": ((4, FINE, CODES + (1 << 40)), "codes are 0 to 65535"),
    "flat": ((4, FINE, CODES[0]), "1 axes"),
    "no frames": ((4, FINE, CODES[:, :0]), "shape"),
    "rows": ((4, FINE, CODES[:2]), "2 codebooks, where most clips have 3"),
    "torn": ((4, FINE, of_numpy("<i4", (3, 80), False, bytes(959))), "torn"),
    "huge header": ((4, FINE, of_numpy("<i4", (3, 99999999999), False, bytes(960))), "torn: its header promises"),
    "no array": ((4, FINE, b"RIFF" * 100), "not a NumPy file"),
    "no text": ((4, " \n"), "the transcript is empty"),
    "no UTF-8": ((4, "Grüße von hier".encode("latin-1")), "not UTF-8"),
    "huge text": ((4, b"word " * 300_000), "bytes, at most"),
    "book": ((4, words(ENGLISH, 60, LETTERS)), "text too long for the sound: 840 characters in 4.0 s"),
    "one word": ((29, "Yes."), "text too short for the sound: 3 characters in 29.0 s"),
    "Chinese book": ((4, words(CHINESE, 40, SYLLABLES)), "text too long for the sound"),
}


@pytest.mark.parametrize("kind", POISON)
def test_a_poisoned_clip_is_left_out_by_name_and_the_others_are_packed(data, tmp_path, kind):
    clip, reason = POISON[kind]
    put(data / "anna", "bad", *clip)
    report = build(data, tmp_path / "out")
    assert report.clips == 12 and [name for name, _ in report.left_out] == ["anna/bad"] and not report.suspicious
    assert any(part in report.left_out[0][1] for part in reason.split("|")), report.left_out
    assert json.loads((tmp_path / "out/index.json").read_text(encoding="utf-8"))["left_out"] == [
        list(report.left_out[0])
    ]
    assert build(data, tmp_path / "out").left_out == report.left_out  # nothing is done, and it is told again


ODD = {
    "fast": ((6, words(ENGLISH, 6, 34)), "times as fast as this speaker's others"),
    "slow": ((8, words(ENGLISH, 8, 4)), "times as slow as this speaker's others"),
    "long": ((40, words(ENGLISH, 40, LETTERS)), "40.0 s long: 10 to 30 s train best"),
    "wordless": ((3, "... !"), "no letter or digit in its transcript"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_clip_is_packed_and_named(data, tmp_path, kind):
    clip, odd = ODD[kind]
    put(data / "anna", "odd", *clip)
    for _ in range(2):
        report = build(data, tmp_path / "out")
        assert report.clips == 13 and not report.left_out
        assert [name for name, _ in report.suspicious] == ["anna/odd"] and odd in report.suspicious[0][1]


@pytest.mark.parametrize(("text", "per_s"), [(CHINESE, SYLLABLES), (CHINESE, 3.5), (ENGLISH, 10), (ENGLISH, 20)])
def test_each_speaker_is_the_measure_of_its_own_clips(data, tmp_path, text, per_s):
    for number in range(10):
        put(data / "li", f"{number:02}", 3 + number % 5, words(text, 3 + number % 5, per_s))
    report = build(data, tmp_path / "out")
    assert report.clips == 22 and not report.left_out and not report.suspicious
    put(data / "li", "odd", 8, words(text, 8, per_s / 3))
    assert [name for name, _ in build(data, tmp_path / "out").suspicious] == ["li/odd"]


def test_a_speaker_of_two_languages_is_not_odd(data, tmp_path):
    for number in range(8):
        put(data / "anna", f"zh{number}", 6, words(CHINESE, 6, SYLLABLES))
    report = build(data, tmp_path / "out")
    assert report.clips == 20 and not report.left_out and not report.suspicious


def test_one_word_in_a_short_clip_is_not_odd(data, tmp_path):
    put(data / "anna", "yes", 1.5, "Yes.")
    put(data / "anna", "no", 0.4, "No, never at all.")
    report = build(data, tmp_path / "out")
    assert report.clips == 14 and not report.left_out and not report.suspicious


def test_codes_of_another_codec_stand_out_where_nothing_is_known_of_the_codec(data, tmp_path):
    (data / ".codec.json").unlink()
    put(data / "anna", "bad", 4, FINE, CODES + 4000)
    report = build(data, tmp_path / "out")
    assert report.clips == 12 and "has the code 4" in report.left_out[0][1] and "below 1024" in report.left_out[0][1]


def test_a_codec_of_large_codebooks_is_no_poison(tmp_path):
    for number in range(4):
        codes = np.random.default_rng(number).integers(0, 4096, (3, 80))
        put(tmp_path / "data/anna", f"{number}", 4, FINE, codes if number else codes % 1000)
    assert build(tmp_path / "data", tmp_path / "out").clips == 4


def test_texts_are_not_judged_by_a_frame_rate_that_is_only_assumed_and_does_not_fit():
    bad, good = Facts(None, (900,) * 3, 40.0, 1.0, "text too short for the sound"), Facts(None, (900,) * 3, 4.0, 14.0)
    guessed = judge(["a"] * 4, [bad, bad, bad, good], CodecFacts())
    assert not any(verdict.left_out for verdict in guessed)
    known = judge(["a"] * 4, [bad, bad, bad, good], CodecFacts(RATE))
    assert [bool(verdict.left_out) for verdict in known] == [True, True, True, False]
    assert judge(["a"] * 4, [bad, good, good, good], CodecFacts())[0].left_out


@pytest.mark.parametrize("record", ['{"frame_rate": NaN}', '{"frame_rate": -1, "codebook_size": true}', "[", "[]", "3"])
def test_a_record_of_anything_is_no_record(tmp_path, record):
    (tmp_path / ".codec.json").write_text(record, encoding="utf-8")
    assert codec_of([tmp_path]) == CodecFacts()


def test_another_record_of_the_codec_makes_the_shards_old(data, tmp_path):
    build(data, tmp_path / "out")
    assert is_current(data, tmp_path / "out")
    put_record(data, frame_rate=RATE, codebook_size=500)
    assert not is_current(data, tmp_path / "out")


@pytest.mark.parametrize(("flags", "code"), [((), 1), (("--max-left-out", "5"), 0)])
def test_one_clip_left_out_is_a_failure_unless_allowed_and_named_in_either_case(data, tmp_path, flags, code):
    put(data / "anna", "bad", *POISON["NaN"][0])
    put(data / "anna", "odd", *ODD["long"][0])
    command = [sys.executable, "-m", "fish_speech.build_dataset", "--input", data, "--output", tmp_path / "out", *flags]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == code
    assert "left out: anna/bad: the .npy has 2 axes of float32 with NaN" in result.stderr
    assert "packed, but odd: anna/odd: 40.0 s long" in result.stderr
    assert result.stdout.rstrip().endswith("1 left out; 1 look odd")


any_array = st.builds(
    of_numpy,
    st.sampled_from(["<i4", ">i8", "|u1", "<f4", "|b1", "|O", "<U3", "<M8", "<c8", "|V4", "<i3", ""])
    | st.text(max_size=9),
    st.lists(st.integers(-1, 9) | st.integers(), max_size=4).map(tuple),
    st.booleans(),
    st.binary(max_size=160),
)


@st.composite
def harmed_array(draw) -> bytes:
    """A good file with some bytes changed and its end cut off."""
    data = bytearray(of_numpy("<i4", (3, 5), False, np.arange(15, dtype="<i4").tobytes()))
    for place in draw(st.lists(st.integers(0, len(data) - 1), max_size=4)):
        data[place] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


anything = (
    st.binary(max_size=200) | st.binary(max_size=200).map(b"\x93NUMPY\x01\x00".__add__) | any_array | harmed_array()
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(codes=anything, text=st.binary(max_size=60))
def test_no_bytes_of_codes_or_text_break_the_look_at_a_clip(tmp_path, codes, text):
    put(tmp_path / "data", "clip", 0, text, codes)
    (clip,), _ = find_clips([tmp_path / "data"], [".lab"])
    facts = look_at(RATE, clip)
    assert facts.reason or (facts.codebooks >= 1 and facts.seconds > 0 and 0 <= max(facts.largest) < 1 << 16)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(codes=anything)
def test_no_bytes_of_codes_keep_the_other_clips_from_being_packed(data, tmp_path, codes):
    put(data / "anna", "bad", 0, FINE, codes)
    report = build(data, tmp_path / "out", force=True)
    assert report.clips + len(report.left_out) == 13 and report.clips >= 12
