"""Voices by name: listed without torch, found as spelled, and never another one."""

import os
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.errors import UserError
from fish_speech.synthesis.voice_library import ListedVoice, Voice, find_voice, list_voices, read_reference_list
from fish_speech.synthesis.voices import write_reference

CODES = np.arange(24, dtype=np.int32).reshape(4, 6)
REPO = Path(__file__).parents[2]


@pytest.fixture()
def voices(tmp_path) -> Path:
    folder = tmp_path / "voices"
    write_reference(folder / "anna.npy", CODES, "Hello from Anna.")
    write_reference(folder / "Bert 2.npy", CODES[:, :2], "Bert here.")
    return folder


def link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("links are not allowed here")


def test_voices_are_listed_with_frames_seconds_and_words(voices):
    assert list_voices(voices, frame_rate=2.0) == [
        ListedVoice("Bert 2", 2, 1.0, "Bert here."),
        ListedVoice("anna", 6, 3.0, "Hello from Anna."),
    ]
    assert list_voices(voices)[0].seconds is None
    assert list_voices(voices / "absent") == []
    with pytest.raises(UserError, match="cannot read the voices"):
        list_voices(voices / "anna.npy")


def test_listing_and_finding_voices_and_looking_into_the_cache_load_no_torch(voices, tmp_path):
    code = f"""
import sys
from pathlib import Path
from fish_speech.synthesis import cache, new_reference, weights_identity
from fish_speech.synthesis.voice_library import find_voice, list_voices
assert len(list_voices(Path({str(voices)!r}))) == 2
assert find_voice(Path({str(voices)!r}), "anna").text
assert cache.TokenCache().info().entries == cache.TokenCache().clear().entries == 0
heavy = {{"torch", "tiktoken", "librosa", "scipy", "soundfile", "lightning"}} & set(sys.modules)
assert not heavy, heavy
"""
    environment = {**os.environ, "PYTHONPATH": str(REPO), "FISH_SPEECH_CACHE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_what_cannot_be_used_is_listed_with_the_reason(voices, tmp_path):
    def put(name: str, content: bytes, words: str | None = "Words.") -> None:
        (voices / f"{name}.npy").write_bytes(content)
        if words is not None:
            (voices / f"{name}.txt").write_text(words, encoding="utf-8")

    whole = (voices / "anna.npy").read_bytes()
    np.save(voices / "floats.npy", CODES * 1.5)
    np.save(voices / "flat.npy", CODES[0])
    np.save(voices / "below.npy", CODES - 1)
    for name in ("floats", "flat", "below"):
        (voices / f"{name}.txt").write_text("Words.", encoding="utf-8")
    put("mute", whole, None)
    put("blank", whole, " \n...\n")
    put("long", whole, "a" * 10_001)
    put("torn", whole[:-3])
    put("empty", b"")
    put("huge", bytes(9 << 20))
    put("con", whole)
    put(".hidden", whole)
    put(".partial-1-x", whole)
    (voices / "umlaut.npy").write_bytes(whole)
    (voices / "umlaut.txt").write_bytes(b"F\xfcnf")
    (voices / "sound.WAV").write_bytes(b"")
    (voices / "README.txt").write_text("Not a voice.", encoding="utf-8")
    found = {voice.name: voice for voice in list_voices(voices)}
    reasons = {
        "floats": "float64", "flat": "no codes", "below": "below 0", "mute": "mute.txt is missing", "blank": "holds none",
        "long": "10001 characters", "torn": "torn", "empty": "not a NumPy file", "huge": "bytes", "con": "Windows",
        "umlaut": "not UTF-8", "sound": "recording without codes",
    }  # fmt: skip
    assert set(found) == {"anna", "Bert 2", *reasons}
    for name, reason in reasons.items():
        assert reason in found[name].problem and "\n" not in found[name].problem, found[name]
        with pytest.raises(UserError):
            find_voice(voices, name)
    assert found["mute"].frames == 6 and found["torn"].text == "Words."
    assert found["anna"].problem is None


def test_a_voice_is_found_by_its_name(voices):
    assert find_voice(voices, "anna") == Voice("anna", voices / "anna.npy", "Hello from Anna.")
    (voices / "anna.txt").write_bytes("\ufeffHello,\r\n  Anna.\r\n".encode())
    assert find_voice(voices, "anna").text == "Hello, Anna."


def test_a_name_is_found_in_the_letter_case_that_it_has(voices):
    for name in ("Anna", "ANNA", "bert 2"):
        with pytest.raises(UserError, match="there is no voice"):
            find_voice(voices, name)


def test_an_accented_name_is_found_in_either_spelling_of_unicode(voices):
    composed, decomposed = "Ren\u00e9", "Rene\u0301"
    write_reference(voices / f"{decomposed}.npy", CODES, "Bonjour.")
    assert find_voice(voices, composed).codes.is_file()


def test_an_unknown_voice_is_an_error_that_lists_what_there_is_and_the_nearest(voices):
    with pytest.raises(UserError) as refused:
        find_voice(voices, "Ana")
    assert "'Ana'" in refused.value.what and "Bert 2, anna" in refused.value.why and "'anna'" in refused.value.fix
    with pytest.raises(UserError, match="--list-voices"):
        find_voice(voices, "zzz")
    with pytest.raises(UserError, match="--create-reference"):
        find_voice(voices / "absent", "anna")
    for number in range(30):
        write_reference(voices / f"v{number:02}.npy", CODES, "Words.")
    with pytest.raises(UserError, match="and 12 more"):
        find_voice(voices, "zzz")


BAD_NAMES = [
    "", ".", "..", "...", " ", ". .", "../anna", "..\\anna", "./anna", "voices/anna", "/etc/passwd", "\\anna", "C:anna",
    "C:\\anna", "anna\0", "\0", "an\nna", "anna\x7f", "con", "NUL", "aux.old", "COM1", "lpt9", "anna.", "anna ", " anna",
    ".anna", ".partial-1-anna", "anna*", "a?", "\ud800", "anna:stream", "x" * 100_000, "//server/share", "~", "%2e%2e",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name[:20]))
def test_a_name_that_is_no_plain_file_name_is_refused_shortly(voices, name):
    write_reference(voices.parent / "anna.npy", CODES, "Outside.")
    with pytest.raises(UserError) as refused:
        find_voice(voices, name)
    message = str(refused.value)
    assert len(message) < 1000 and message.count("\n") == 2 and message.replace("\n", "").isprintable()


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=string.ascii_letters[:4] + "./\\: \0~" + "é\u0301", max_size=6))
def test_no_name_leads_out_of_the_folder_or_to_another_voice(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "named"
    for voice in ("a", "b/a", "b/aa", "b/A.b", "b/a b", "b/c/a"):
        if not (root / f"{voice}.npy").exists():
            write_reference(root / f"{voice}.npy", CODES, f"This is {voice}.")
    try:
        found = find_voice(root / "b", name)
    except UserError:
        assert name not in ("a", "aa", "A.b", "a b")
    else:
        assert found.name == name and found.text == f"This is b/{name}." and found.codes == root / "b" / f"{name}.npy"


@pytest.mark.parametrize("suffix", [".npy", ".txt"])
def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_a_second_name(voices, suffix):
    write_reference(voices.parent / "outside.npy", CODES, "Outside.")
    write_reference(voices / "eve.npy", CODES, "Eve.")
    (voices / f"eve{suffix}").unlink()
    link(voices / f"eve{suffix}", Path("..") / f"outside{suffix}")
    with pytest.raises(UserError, match="link out of the folder"):
        find_voice(voices, "eve")
    assert "link out" in next(voice.problem for voice in list_voices(voices) if voice.name == "eve")
    (voices / f"eve{suffix}").unlink()
    link(voices / f"eve{suffix}", Path(f"anna{suffix}"))
    assert find_voice(voices, "eve").name == "eve"
    (voices / f"eve{suffix}").unlink()
    link(voices / f"eve{suffix}", Path(f"eve{suffix}"))  # a circle
    with pytest.raises(UserError, match="eve"):
        find_voice(voices, "eve")
    assert {voice.name for voice in list_voices(voices)} == {"anna", "Bert 2", "eve"} or suffix == ".npy"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("suffix", [".npy", ".txt"])
def test_a_pipe_in_place_of_a_file_does_not_stop_the_listing(voices, suffix):
    (voices / f"anna{suffix}").unlink()
    os.mkfifo(voices / f"anna{suffix}")
    assert next(voice.problem for voice in list_voices(voices) if voice.name == "anna")
    with pytest.raises(UserError, match="anna"):
        find_voice(voices, "anna")


# Lists of references


def test_a_list_names_codes_and_words_with_a_tab_or_a_bar(voices, monkeypatch):
    path = voices.parent / "references.txt"
    path.write_bytes("\ufeffvoices/anna.npy\tSaid | by Anna.\r\n\nvoices/anna.npy | Said by Anna.\n".encode())
    codes = voices / "anna.npy"
    assert read_reference_list(path) == [(codes, "Said | by Anna."), (codes, "Said by Anna.")]
    path.write_text(f"{codes}\nvoices/Bert 2.npy|\n", encoding="utf-8")
    assert read_reference_list(path) == [(codes, "Hello from Anna."), (voices / "Bert 2.npy", "Bert here.")]
    monkeypatch.chdir(voices)
    path.write_text("anna.npy\tWords.\n", encoding="utf-8")
    assert read_reference_list(path) == [(Path("anna.npy"), "Words.")]


def test_every_bad_line_of_a_list_is_named(voices):
    (voices / "anna.txt").unlink()
    path = voices / "references.txt"
    path.write_text(
        f"anna.npy\nmissing.npy\tx\nanna.wav\tx\nBert 2.npy\n\0.npy\tx\n{'n' * 9000}.npy\tx\nanna.npy|...\n"
    )
    with pytest.raises(UserError) as refused:
        read_reference_list(path)
    assert refused.value.what.startswith("6 lines") and len(str(refused.value)) < 1500
    for told in (
        "line 1: it has no words: anna.txt",
        "line 2: there is no file",
        "line 3:",
        "line 5:",
        "line 6:",
        "line 7:",
    ):
        assert told in refused.value.why


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\xff", b"anna.npy\tx\n" * 65, bytes(2 << 20)])
def test_what_is_no_list_of_references_is_refused(voices, content):
    path = voices / "references.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"references\.txt"):
        read_reference_list(path)
    with pytest.raises(UserError, match="no list"):
        read_reference_list(voices)
