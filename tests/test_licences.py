"""What a voice pack says of the rights it touches."""

from __future__ import annotations

import json

import pytest

from fish_speech.licences import BASE_NOTICE, CONSENT, DATA_NOTICE, LICENCES, licence_notes
from fish_speech.versions import VERSIONS

from .conftest import REPO


@pytest.fixture()
def base(tmp_path):
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


@pytest.fixture()
def data(tmp_path):
    (tmp_path / "data/anna").mkdir(parents=True)
    return tmp_path / "data"


def test_every_model_version_has_a_licence():
    assert set(VERSIONS) <= set(LICENCES)


@pytest.mark.parametrize("version", sorted(LICENCES))
def test_the_versions_licence_and_the_speakers_consent_are_named(base, version):
    notes, notices = licence_notes(version, base, None)
    assert [note["of"] for note in notes] == [f"base weights ({version})", "speaker"]
    assert notes[0]["licence"].startswith("CC-BY") and notes[0]["url"].startswith("https://creativecommons.org/")
    assert notes[1]["note"] == CONSENT and notices == {}


def test_the_notice_of_minnow_goes_along():
    _, notices = licence_notes("minnow", REPO / "checkpoints/minnow", None)
    assert "Keep this notice with every copy" in notices[BASE_NOTICE]


@pytest.mark.parametrize(
    "name", ["LICENSE", "licence.md", "NOTICE.txt", "COPYING", "anna/LICENSE.txt", "LICENSE-voice.txt"]
)
def test_a_notice_in_the_data_is_copied(base, data, name):
    (data / name).write_text("Keep me.\n", encoding="utf-8")
    notes, notices = licence_notes("1.5", base, data)
    assert notices == {DATA_NOTICE: "Keep me.\n"}
    assert notes[1]["file"] == DATA_NOTICE and notes[-1]["of"] == "speaker"


@pytest.mark.parametrize("text", ["Licence: CC-BY-SA 3.0", "(c) 2010 Anna", "Copyright: Anna", "under CC0"])
def test_a_readme_is_a_notice_only_if_it_has_a_licence_line(base, data, text):
    (data / "README.md").write_text("Recordings of Anna.\n", encoding="utf-8")
    assert licence_notes("1.5", base, data)[1] == {}
    (data / "README.md").write_text(f"Recordings of Anna.\n\n{text}\n", encoding="utf-8")
    assert text in licence_notes("1.5", base, data)[1][DATA_NOTICE]


def manifest(data, **row):
    with (data / "manifest.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"clip": "anna/a.wav", "speaker": "anna", **row}) + "\n")


def test_a_notice_beside_the_recordings_is_found_through_the_manifest(base, data):
    source = REPO / "samples/allison/invalid.flac"
    manifest(data, source=str(source), speaker="allison")
    assert "Allison Smith" in licence_notes("1.5", base, data)[1][DATA_NOTICE]


def test_a_source_without_its_whole_path_leads_nowhere(base, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LICENSE").write_text("of something else", encoding="utf-8")
    manifest(data, source="a.wav")
    assert licence_notes("1.5", base, data)[1] == {}


def test_nothing_is_looked_for_above_the_folder_of_the_speaker(base, data, tmp_path):
    (tmp_path / "all/anna/takes").mkdir(parents=True)
    (tmp_path / "LICENSE").write_text("of something else", encoding="utf-8")
    (tmp_path / "all/LICENSE").write_text("of all recordings", encoding="utf-8")
    manifest(data, source=str(tmp_path / "all/anna/takes/a.wav"))
    assert licence_notes("1.5", base, data)[1] == {}
    manifest(data, source=str(tmp_path / "all/anna/b.wav"))
    assert licence_notes("1.5", base, data)[1] == {DATA_NOTICE: "of all recordings\n"}


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00licence", b"licence " * 100_000, b""], ids=["binary", "huge", "empty"]
)
def test_what_is_no_text_of_a_sensible_size_is_left_out(base, data, content):
    (data / "LICENSE").write_bytes(content)
    assert licence_notes("1.5", base, data)[1] == {}


@pytest.mark.parametrize(
    "line", ["not json", "[1]", '{"clip": "a", "source": 3}', '{"clip": "a", "source": "/a\\u0000b/c"}']
)
def test_a_broken_manifest_hinders_nobody(base, data, line):
    (data / "manifest.jsonl").write_text(line + "\n", encoding="utf-8")
    assert licence_notes("1.5", base, data)[1] == {}


def test_a_voice_made_of_a_voice_hands_its_notes_and_notices_on(base, data, tmp_path):
    (base / "LICENSE").write_text("of the base", encoding="utf-8")
    (data / "LICENSE").write_text("of the first data", encoding="utf-8")
    notes, notices = licence_notes("minnow", base, data)
    pack, more = tmp_path / "pack", tmp_path / "more"
    for folder in (pack, more):
        folder.mkdir()
    for name, text in notices.items():
        (pack / name).write_text(text, encoding="utf-8")
    (pack / "voice.json").write_text(json.dumps({"licences": notes}), encoding="utf-8")
    (more / "LICENSE").write_text("of more data", encoding="utf-8")
    then_notes, then_notices = licence_notes("1.5", pack, more)
    assert then_notes == notes  # of minnow still, whatever version is said, and each once
    assert then_notices == {BASE_NOTICE: "of the base\n", DATA_NOTICE: "of the first data\n\nof more data\n"}


@pytest.mark.parametrize("content", ["[]", '{"licences": 5}', '{"licences": [5]}', "{", "{}"])
def test_a_base_with_an_odd_voice_json_counts_as_a_base_of_its_version(base, content):
    (base / "voice.json").write_text(content, encoding="utf-8")
    assert licence_notes("minnow", base, None)[0][0]["of"] == "base weights (minnow)"


def test_a_notice_in_an_old_encoding_is_kept(base, data):
    (data / "LICENSE.txt").write_bytes("© Jürgen".encode("cp1252"))
    assert licence_notes("1.5", base, data)[1] == {DATA_NOTICE: "© Jürgen\n"}
