"""What a merged folder gets besides the model, and that nothing is done twice."""

from __future__ import annotations

import json
import math
import os
import shutil

import numpy as np
import pytest
import torch

from fish_speech import reference_clip, voice_pack
from fish_speech.audio import write_wav
from fish_speech.checkpoint import sha256
from fish_speech.errors import UserError
from fish_speech.synthesis.voices import packed_reference, write_reference
from fish_speech.voice_pack import Wish, check_wish, complete, numbers, tournament_row

from .conftest import CODEC_FILE

WORDS = "Words of the clip that was given."


@pytest.fixture(autouse=True)
def deaf(monkeypatch):
    """No voices can be compared, as without the eval extra."""
    monkeypatch.setattr(reference_clip, "can_compare", lambda: False)
    monkeypatch.setattr(voice_pack, "can_compare", lambda: False)


def write_data(folder):
    """Clips of half a second."""
    (folder / "anna").mkdir(parents=True)
    for number in range(5):
        codes = np.random.default_rng(number).integers(0, 1000, (8, 12 + number), dtype=np.int32)
        np.save(folder / f"anna/{number}.npy", codes)
        (folder / f"anna/{number}.lab").write_text(f"Number {number}.", encoding="utf-8")


@pytest.fixture()
def pack(tmp_path, small_base, monkeypatch):
    """A function that completes a merged folder, as often as it is called, and returns what its voice.json says."""
    monkeypatch.chdir(tmp_path)
    output, checkpoint = tmp_path / "merged", tmp_path / "results/p/checkpoints/step_000000004.ckpt"
    output.mkdir()
    checkpoint.parent.mkdir(parents=True)
    write_data(tmp_path / "data")
    (output / "config.json").write_bytes((small_base / "config.json").read_bytes())
    for name in (CODEC_FILE, CODEC_FILE.replace(".pth", ".yaml")):
        os.link(small_base / name, output / name)
    (output / "voice.json").write_text(json.dumps({"codec": CODEC_FILE, "step": 4}), encoding="utf-8")

    def run(wish: Wish | None = None, version: str = "1.5", **content):
        record = {"data": str(tmp_path / "data"), "project": "p"}
        torch.save({"fish_speech": record, "state_dict": {}, **content}, checkpoint)
        complete(output, voice(), checkpoint.parent, small_base, version, wish or Wish())
        return voice()

    def voice():
        return json.loads((output / "voice.json").read_text(encoding="utf-8"))

    run.output, run.data = output, tmp_path / "data"
    return run


@pytest.fixture()
def clip(tmp_path):
    """Codes with their words."""
    write_reference(tmp_path / "clip.npy", np.arange(8 * 20, dtype=np.int32).reshape(8, 20), WORDS)
    return tmp_path / "clip.npy"


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_the_pack_gets_a_clip_of_the_data_it_was_trained_on(pack):
    voice = pack()
    source = pack.data / f"{voice['reference']['source']}.npy"
    np.testing.assert_array_equal(np.load(pack.output / "reference.npy"), np.load(source))
    assert voice["reference"]["text"] == source.with_suffix(".lab").read_text(encoding="utf-8").strip()
    assert (pack.output / "reference.txt").read_text(encoding="utf-8").strip() == voice["reference"]["text"]
    assert voice["use_reference"] is True and voice["step"] == 4
    found = packed_reference(pack.output)
    assert (found.codes, found.text, found.used) == (pack.output / "reference.npy", voice["reference"]["text"], True)


def test_nothing_in_what_is_added_names_a_place_on_this_machine(pack, tmp_path):
    (pack.data / "LICENSE").write_text("Keep me.", encoding="utf-8")
    assert str(tmp_path) not in json.dumps(pack(metrics={"wer": 0.25}))


def test_nothing_is_written_twice(pack):
    (pack.data / "LICENSE").write_text("Keep me.", encoding="utf-8")
    (pack.data / "manifest.jsonl").write_text("", encoding="utf-8")
    voice, before = pack(), times(pack.output)
    os.utime(pack.data / "manifest.jsonl", (1, 1))  # preparation writes it at every run
    assert pack() == voice and times(pack.output) == before


@pytest.mark.parametrize("change", ["new clip", "words", "codes", "manifest"])
def test_other_data_makes_another_choice(pack, change):
    voice = pack()
    chosen = pack.data / voice["reference"]["source"]
    if change == "new clip":
        np.save(pack.data / "anna/new.npy", np.full((8, 100), 7, np.int32))  # of a good length, unlike all others
        (pack.data / "anna/new.lab").write_text(
            "This one has the right length for a reference, unlike the others.", encoding="utf-8"
        )
    elif change == "words":
        chosen.with_suffix(".lab").write_text("What was really said.", encoding="utf-8")
    elif change == "codes":
        np.save(chosen.with_suffix(".npy"), np.load(chosen.with_suffix(".npy"))[:, ::-1])
        os.utime(chosen.with_suffix(".npy"), ns=(1, 1))
    else:
        row = {"source": "/r.wav", "speaker": "anna", "clip": f"{voice['reference']['source']}.wav", "snr_db": -9.0}
        (pack.data / "manifest.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    changed = pack()
    assert changed["reference_from"] != voice["reference_from"]
    same = (
        ("text", "sha256") if change in ("new clip", "manifest") else {"words": ("text",), "codes": ("sha256",)}[change]
    )
    assert all(changed["reference"][key] != voice["reference"][key] for key in same)
    assert packed_reference(pack.output).text == changed["reference"]["text"]


@pytest.mark.parametrize("file", ["reference.npy", "reference.txt"])
@pytest.mark.parametrize("content", [None, b"something else"])
def test_a_lost_or_damaged_reference_is_made_again(pack, file, content):
    voice, path = pack(), pack.output / file
    before = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    assert pack() == voice
    if (file, content) != ("reference.txt", None):  # voice.json has the words too
        assert path.read_bytes() == before


def test_without_its_data_a_pack_keeps_the_reference_it_has_and_a_new_one_gets_none(pack, caplog):
    (pack.data / "LICENSE").write_text("Keep me.", encoding="utf-8")
    voice = pack()
    pack.data.rename(pack.data.with_name("elsewhere"))
    assert pack() == voice and (pack.output / "LICENCE-data.txt").read_text(encoding="utf-8") == "Keep me.\n"
    (pack.output / "reference.npy").unlink()
    bare = pack()
    assert bare["reference"] is None and not (pack.output / "reference.txt").exists()
    assert "--data-dir" in caplog.text
    assert pack(Wish(data=pack.data.with_name("elsewhere")))["reference"] == voice["reference"]


def test_no_reference_removes_one_that_was_there(pack):
    pack()
    assert pack(Wish(wanted=False))["reference"] is None
    assert not list(pack.output.glob("reference*")) and packed_reference(pack.output) is None
    assert pack()["reference"] is not None


def test_a_clip_that_is_given_is_taken_as_it_is(pack, clip):
    pack()
    record = pack(Wish(clip=clip))["reference"]
    assert (record["text"], record["source"], record["why"]) == (WORDS, "clip.npy", "as given")
    np.testing.assert_array_equal(np.load(pack.output / "reference.npy"), np.load(clip))
    before = times(pack.output)
    pack(Wish(clip=clip))
    assert times(pack.output) == before
    clip.with_suffix(".txt").write_text("Other words.", encoding="utf-8")
    assert pack(Wish(clip=clip))["reference"]["text"] == "Other words."


def test_a_version_that_speaks_better_without_a_reference_has_one_but_uses_it_only_if_the_user_gives_it(pack, clip):
    assert pack(version="minnow")["use_reference"] is False
    assert packed_reference(pack.output).used is False and (pack.output / "reference.npy").is_file()
    assert pack(Wish(clip=clip), version="minnow")["use_reference"] is True
    assert packed_reference(pack.output).used is True


def test_a_recording_that_is_given_is_encoded_by_the_packs_codec(pack, tmp_path):
    from fish_speech.models import codec_config, load_codec

    sound = 0.3 * np.sin(np.arange(11025) / 30).astype(np.float32)
    write_wav(tmp_path / "clip.wav", sound, 44100)
    (tmp_path / "clip.lab").write_text(WORDS, encoding="utf-8")
    record = pack(Wish(clip=tmp_path / "clip.wav"))["reference"]
    codec = load_codec(pack.output / CODEC_FILE, codec_config((pack.output / CODEC_FILE).with_suffix(".yaml")))
    expected = codec.encode_clips([torch.from_numpy(np.round(sound * 32767).astype(np.int16) / np.float32(32768))])[0]
    codes = np.load(pack.output / "reference.npy")
    assert codes.shape == tuple(expected.shape) and (codes == expected.numpy()).mean() > 0.95  # 16-bit rounding
    assert record["seconds"] == pytest.approx(codes.shape[1] * 2048 / 44100, abs=1e-3)


@pytest.mark.parametrize(
    ("codes", "part"),
    [
        (np.zeros((3, 9), np.int32), "codes of this model"),
        (np.full((8, 9), 5000), "codes must be 0-1023"),
        (None, "cannot"),
    ],
)
def test_a_clip_of_another_codec_is_refused(pack, clip, codes, part):
    clip.write_bytes(b"no codes") if codes is None else np.save(clip, codes)
    with pytest.raises(UserError, match=part):
        pack(Wish(clip=clip))


def test_codes_of_another_codec_give_no_reference(pack, caplog):
    (pack.data / ".codec.json").write_text(json.dumps({"codec_sha256": "0" * 64, "frame_rate": 20}), encoding="utf-8")
    assert pack()["reference"] is None
    assert "of another codec" in caplog.text


@pytest.mark.parametrize(
    ("wish", "part"),
    [
        ({"clip": "gone.npy"}, "no reference"),
        ({"clip": "wordless.npy"}, "no words"),
        ({"data": "gone"}, "no data folder"),
        ({"clip": "clip.npy", "data": "."}, "without --data-dir"),
        ({"clip": "clip.npy", "speaker": "anna"}, "without --data-dir"),
        ({"wanted": False, "clip": "clip.npy"}, "--no-reference"),
        ({"wanted": False, "data": "."}, "--no-reference"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_before_any_work(clip, tmp_path, wish, part):
    (tmp_path / "wordless.npy").touch()
    paths = {
        key: tmp_path / value if isinstance(value, str) and key != "speaker" else value for key, value in wish.items()
    }
    with pytest.raises(UserError, match=part):
        check_wish(Wish(**paths))
    check_wish(Wish(clip=clip))


def test_a_clip_that_is_given_is_looked_at_before_anything_is_merged(clip, small_base):
    check_wish(Wish(clip=clip), small_base)
    np.save(clip, np.full((8, 9), 5000))
    check_wish(Wish(clip=clip))
    with pytest.raises(UserError, match="codes must be 0-1023"):
        check_wish(Wish(clip=clip), small_base)


def test_metrics_are_the_finite_numbers_of_the_checkpoint(pack):
    metrics = {"wer": 0.25, "step": 4, "nan": math.nan, "inf": math.inf, "text": "x", "list": [1], "yes": True}
    assert numbers(metrics) == {"wer": 0.25, "step": 4}
    assert numbers({str(number): number for number in range(1000)}).keys() == {str(number) for number in range(64)}
    assert numbers([1]) == numbers(None) == {}
    assert pack(metrics=metrics)["metrics"] == {"wer": 0.25, "step": 4}
    assert pack()["metrics"] == {}


def results(folder, content):
    (folder / "tournament").mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "tournament/results.json").write_text(text, encoding="utf-8")


def test_the_tournaments_row_of_the_merged_step_is_told(pack, tmp_path):
    rows = [{"name": "base", "step": None, "summary": {"wer": 0.5}}]
    rows += [{"name": f"step_{step}", "step": step, "summary": {"wer": step / 10, "kind": "x"}} for step in (2, 4)]
    pack(metrics={"loss": 1.5})
    path = tmp_path / "results/p/checkpoints/step_000000004.ckpt"
    took_part = {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
    results(tmp_path / "results/p", {"format": 1, "systems": rows, "inputs": {"checkpoints": [took_part]}})
    assert pack(metrics={"loss": 1.5})["metrics"] == {"loss": 1.5, "tournament": {"wer": 0.4}}
    assert pack(metrics={"loss": 2.5})["metrics"] == {"loss": 2.5}  # trained anew: another checkpoint of this step


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000])
def test_a_torn_tournament_says_nothing(tmp_path, content):
    results(tmp_path, content)
    assert tournament_row(tmp_path / "checkpoints/step_000000004.ckpt", 4) == {}


@pytest.mark.parametrize("systems", [4, [4], [{"step": 2}], [{"step": 4, "summary": 3}], [{"step": 4}, {"step": 4}]])
def test_a_tournament_without_that_step_says_nothing(tmp_path, systems):
    path = tmp_path / "checkpoints/step_000000004.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    took_part = {"name": path.name, "bytes": 7, "modified": path.stat().st_mtime}
    results(tmp_path, {"format": 1, "inputs": {"checkpoints": [took_part]}, "systems": systems})
    assert tournament_row(path, 4) == {}


@pytest.mark.parametrize("record", [None, 5, {}, {"data": 5}, {"data": ["protos"]}, {"data": "gone"}, {"data": "a\0b"}])
def test_a_checkpoint_that_names_no_data_folder_names_none(record, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert voice_pack.data_folder(record) is None


DAMAGE = {
    "gone": lambda folder: (folder / "reference.npy").unlink(),
    "changed": lambda folder: (folder / "reference.npy").write_bytes(b"x"),
    "huge": lambda folder: (folder / "reference.npy").write_bytes(bytes(9 << 20)),
    "other words": lambda folder: (folder / "reference.txt").write_text("Others.", encoding="utf-8"),
    "no text": lambda folder: (folder / "reference.txt").write_bytes(b"\xff\xfe\xff"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_reference_is_said_with_what_to_do(pack, damage):
    pack()
    DAMAGE[damage](pack.output)
    with pytest.raises(UserError) as refused:
        packed_reference(pack.output)
    assert "reference." in refused.value.what and "--no-reference" in refused.value.fix


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../clip.npy"},
        {"file": "/etc/passwd"},
        {"file": ".."},
        {"file": 5},
        {"text": ""},
        {"text": "x" * 20_000},
    ],
    ids=str,
)
def test_a_voice_json_cannot_lead_out_of_its_folder_nor_be_odd(pack, clip, change):
    record = {**pack()["reference"], **change}
    (pack.output / "voice.json").write_text(json.dumps({"reference": record}), encoding="utf-8")
    with pytest.raises(UserError, match="does not say its reference"):
        packed_reference(pack.output)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"reference": null}', "[" * 100_000])
def test_a_folder_whose_voice_json_names_no_reference_has_none(tmp_path, content):
    assert packed_reference(tmp_path) is None
    (tmp_path / "voice.json").write_text(content, encoding="utf-8")
    assert packed_reference(tmp_path) is None


@pytest.fixture()
def s1_pack(tmp_path, small_s1_base, monkeypatch):
    """The same with a merged folder of S1-mini, whose data was extracted with its codec."""
    from fish_speech.extract_vq import extract, make_parser

    monkeypatch.chdir(tmp_path)
    output, checkpoint = tmp_path / "merged", tmp_path / "results/p/checkpoints/step_000000004.ckpt"
    shutil.copytree(small_s1_base, output)
    checkpoint.parent.mkdir(parents=True)
    (tmp_path / "data/anna").mkdir(parents=True)
    for number in range(3):
        sound = 0.3 * np.sin(np.arange(20000 + 4000 * number) / (20 + number)).astype(np.float32)
        write_wav(tmp_path / f"data/anna/{number}.wav", sound, 32000)
        (tmp_path / f"data/anna/{number}.lab").write_text(f"Number {number}.", encoding="utf-8")
    extract(make_parser().parse_args([str(tmp_path / "data"), "--checkpoint-path", str(output / "codec.pth")]))
    (output / "voice.json").write_text(json.dumps({"codec": "codec.pth", "step": 4}), encoding="utf-8")
    torch.save({"fish_speech": {"data": str(tmp_path / "data"), "project": "p"}, "state_dict": {}}, checkpoint)

    def run(wish: Wish | None = None):
        voice = json.loads((output / "voice.json").read_text(encoding="utf-8"))
        complete(output, voice, checkpoint.parent, small_s1_base, "s1-mini", wish or Wish())
        return json.loads((output / "voice.json").read_text(encoding="utf-8"))

    run.output, run.data = output, tmp_path / "data"
    return run


def test_a_pack_of_s1_gets_a_reference_of_its_data_and_says_its_version(s1_pack):
    from fish_speech.versions import version_of_folder

    voice = s1_pack()
    assert voice["model_version"] == "s1-mini" and version_of_folder(s1_pack.output).name == "s1-mini"
    codes = np.load(s1_pack.output / "reference.npy")
    assert codes.shape[0] == 10 and voice["reference"]["seconds"] == pytest.approx(codes.shape[1] / 25, abs=1e-3)
    before = times(s1_pack.output)
    assert s1_pack() == voice and times(s1_pack.output) == before


def test_a_pack_of_s1_takes_no_codes_of_1_5(s1_pack, clip):
    for give in (s1_pack, lambda wish: check_wish(wish, s1_pack.output)):
        with pytest.raises(UserError, match=r"as Fish Speech 1\.5 has"):
            give(Wish(clip=clip))
    for path in s1_pack.data.rglob("*.npy"):
        np.save(path, np.zeros((8, 20), np.int32))
    assert s1_pack()["reference"] is None


def test_a_recording_given_to_a_pack_of_s1_is_encoded_by_its_codec(s1_pack, tmp_path):
    write_wav(tmp_path / "clip.wav", 0.3 * np.sin(np.arange(13000) / 30).astype(np.float32), 32000)
    (tmp_path / "clip.lab").write_text(WORDS, encoding="utf-8")
    assert s1_pack(Wish(clip=tmp_path / "clip.wav"))["reference"]["text"] == WORDS
    assert np.load(s1_pack.output / "reference.npy").shape == (10, 11)  # 13000 samples, 1280 a frame


def test_a_pack_says_its_model_version(pack):
    assert pack()["model_version"] == "1.5"
    assert pack(version="minnow")["model_version"] == "minnow"
