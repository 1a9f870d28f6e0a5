"""Both families on one machine: neither takes the other's files for its own, and says whose they are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ..conftest import CODEC_FILE, write_s1_folder
from .conftest import S1_FOLDER, TRAINING
from .families import FAMILIES
from .scripts import BASE, REPO, contents, data_set, leftovers, put_base, refuse, run

CHECKPOINT = "results/voice/checkpoints/step_000000004.ckpt"
DATA, MERGED = "training_data/voice", "checkpoints/voice-merged"
RECORDING = REPO / "samples/allison/conf-kicked.flac"
SHORT = ("--max-new-tokens", 8, "--device", "cpu")
NAMES = {"1.5": r"Fish Speech|1\.5|firefly", "s1-mini": r"S1|s1-mini|modded_dac"}  # a message must name the strange one
OTHER = {"1.5": "s1-mini", "s1-mini": "1.5"}
BASES = {"1.5": Path("1.5", BASE), "s1-mini": Path("s1-mini", S1_FOLDER)}
CODECS = {"1.5": CODEC_FILE, "s1-mini": "codec.pth"}
MADE = (".npy", ".ckpt", ".pth", ".wav", ".protos", ".safetensors")

both_ways = pytest.mark.parametrize("own", FAMILIES)


@pytest.fixture()
def rooms(finished, s1_finished, tmp_path) -> Path:
    """A folder with both finished voices in it, in folders called as their versions."""
    for version, folder in (("1.5", finished), ("s1-mini", s1_finished)):
        shutil.copytree(folder, tmp_path / version, copy_function=shutil.copy2)
    return tmp_path


def speaking(own: str, *arguments: object) -> tuple[object, ...]:
    return ("cli_tts.py", "Hi.", "--model-path", BASES[own], "-o", "out/x.wav", "--no-cache", *arguments, *SHORT)


def training(own: str, *arguments: object, data: Path | None = None) -> tuple[object, ...]:
    version = ("--model-version", own, "--pretrained-ckpt-path", BASES[own])
    data = data or Path(own, DATA)
    return ("finetune_tts.py", "--project", "new", "--data-dir", data, *version, "--train", "--max-steps", 2,
            *TRAINING, *arguments)  # fmt: skip


def merging(own: str, checkpoint: Path | None = None) -> tuple[object, ...]:
    checkpoint = checkpoint or Path(own, CHECKPOINT)
    return ("merge_lora", "--base-weight", BASES[own], "--lora-weight", checkpoint, "--output", "out")


def refuse_as(strange: str, name: object, *arguments: object, cwd: Path) -> str:
    """Run what must be refused with the name of the family that it is of, and leave nothing made or half-written."""
    before = {path for path in cwd.rglob("*") if path.suffix in MADE}
    message = refuse(str(name), *arguments, cwd=cwd)
    assert re.search(NAMES[strange], message), message
    made = {path for path in cwd.rglob("*") if path.suffix in MADE and path.suffix != ".protos"} - before
    assert made == set() and leftovers(cwd) == [] and not (cwd / "out").exists(), made
    return message


# Another family's files in a folder


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("user", [speaking, training, merging])
def test_the_other_familys_weights_are_refused_by_name(rooms, own, user):
    shutil.copyfile(rooms / BASES[OTHER[own]] / "model.pth", rooms / BASES[own] / "model.pth")
    assert "model.pth" in refuse_as(OTHER[own], *user(own), cwd=rooms)


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("yaml", ["with the yaml", "without a yaml"])
@pytest.mark.parametrize("user", ["speak", "extract", "make a reference"])
def test_the_other_familys_codec_is_refused_by_name(rooms, own, user, yaml):
    codec = rooms / BASES[own] / CODECS[own]
    shutil.copyfile(rooms / BASES[OTHER[own]] / CODECS[OTHER[own]], codec)
    if yaml == "without a yaml":
        codec.with_suffix(".yaml").unlink()
    usual = {"1.5": "firefly_gan_vq", "s1-mini": "modded_dac_vq"}[own]
    shape = codec.with_suffix(".yaml") if yaml == "with the yaml" else usual
    model = ("--model-path", BASES[own])
    command = {
        "speak": speaking(own),
        "extract": ("extract_vq", Path(own, DATA), "--force", "--config-name", shape, "--checkpoint-path", codec),
        "make a reference": ("cli_tts.py", "--create-reference", RECORDING, "new.npy", *model, "--device", "cpu"),
    }[user]
    assert codec.name in refuse_as(OTHER[own], *command, cwd=rooms)


@pytest.mark.slow
@both_ways
def test_a_tokenizer_of_the_other_family_is_refused(rooms, own):
    """1.5 never reads special_tokens.json, so only its ranks can be strange; they are none that a family owns."""
    for name in ("tokenizer.tiktoken", "special_tokens.json"):
        shutil.copyfile(rooms / BASES[OTHER[own]] / name, rooms / BASES[own] / name)
    before = contents(rooms)
    for user in (speaking, training):
        message = refuse(*map(str, user(own)), cwd=rooms)
        assert "special_tokens.json" in message or "tokenizer" in message
    made = {name for name in contents(rooms) if Path(name).suffix in MADE} - before.keys()
    assert {Path(name).suffix for name in made} <= {".protos"} and leftovers(rooms) == []


# Codes


@pytest.mark.slow
@both_ways
def test_codes_of_the_other_family_are_not_trained_on(rooms, own):
    message = refuse_as(OTHER[own], *training(own, data=Path(OTHER[own], DATA)), cwd=rooms)
    assert f"{FAMILIES[OTHER[own]].codebooks}" in message and f"{FAMILIES[own].codebooks}" in message


@pytest.mark.slow
@both_ways
def test_packed_codes_of_the_other_family_are_not_trained_on(rooms, own):
    packed = f"train_dataset.proto_files=[{OTHER[own]}/results/voice/protos]"
    base = f"pretrained_ckpt_path='{BASES[own].as_posix()}'"
    arguments = ("train", "project=new", "device=cpu", base, packed, "+lora@model.model.lora_config=r_8_alpha_16")
    assert str(FAMILIES[OTHER[own]].codebooks) in refuse_as(OTHER[own], *arguments, cwd=rooms)


@pytest.mark.slow
@both_ways
def test_codes_of_the_other_family_are_made_anew_by_extraction(rooms, own):
    """A data set that one family was trained on can be another's: the codec that its codes are of is known."""
    data = Path(OTHER[own], DATA)
    codec = BASES[own] / CODECS[own]
    run("extract_vq", data, "--checkpoint-path", codec, "--config-name", codec.with_suffix(".yaml"), cwd=rooms)
    shapes = {np.load(path).shape[0] for path in (rooms / data).rglob("*.npy")}
    assert shapes == {FAMILIES[own].codebooks}


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("way", ["prompt", "voice"])
def test_a_reference_of_the_other_family_is_refused_by_name(rooms, own, way):
    strange = Path(OTHER[own], MERGED)
    (rooms / "voices").mkdir()
    for suffix in (".npy", ".txt"):
        shutil.copyfile(rooms / strange / f"reference{suffix}", rooms / f"voices/anna{suffix}")
    flags = {"voice": ("--voice", "anna"), "prompt": ("--prompt-tokens", strange / "reference.npy")}[way]
    refuse_as(OTHER[own], *speaking(own, *flags), cwd=rooms)


@pytest.mark.slow
@both_ways
def test_a_voice_does_not_take_the_other_familys_reference(rooms, own):
    clip = Path(OTHER[own], MERGED, "reference.npy")
    message = refuse(*map(str, merging(own)), "--reference", clip, cwd=rooms)
    assert re.search(NAMES[OTHER[own]], message) and leftovers(rooms) == []
    assert not (rooms / "out/reference.npy").exists()
    for name in ("reference.npy", "reference.txt"):
        shutil.copyfile(rooms / OTHER[own] / MERGED / name, rooms / own / MERGED / name)
    message = refuse("cli_tts.py", "Hi.", "--model-path", Path(own, MERGED), "-o", "x.wav", *SHORT, cwd=rooms)
    assert "reference.npy" in message and "another one" in message and not (rooms / "x.wav").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("row", "value"), [(0, 1100), (3, 1024), (9, 4095)])
def test_codes_beyond_their_codebook_are_refused_as_a_reference(rooms, row, value):
    codes = np.load(rooms / "s1-mini" / MERGED / "reference.npy")
    codes[row, 2] = value
    np.save(rooms / "odd.npy", codes)
    message = refuse(*speaking("s1-mini", "--prompt-tokens", "odd.npy", "--prompt-text", "Words."), cwd=rooms)
    assert "odd.npy" in message and f"codebook {row} must be" in message and not (rooms / "out").exists()


# Checkpoints


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("user", ["speak", "merge", "warm start"])
def test_a_checkpoint_of_the_other_family_is_refused_by_name(rooms, own, user):
    checkpoint = Path(OTHER[own], CHECKPOINT)
    command = {
        "speak": speaking(own, "--checkpoint", checkpoint),
        "merge": merging(own, checkpoint),
        "warm start": training(own, "--resume-from-checkpoint", checkpoint),
    }[user]
    refuse_as(OTHER[own], *command, cwd=rooms)


@pytest.mark.slow
@both_ways
def test_the_latest_checkpoint_is_not_one_of_the_other_family(rooms, own):
    shutil.copytree(rooms / OTHER[own] / "results/voice", rooms / own / "results/strange")
    shutil.copytree(rooms / own / "results/voice", rooms / own / "results/older", copy_function=shutil.copy2)
    shutil.rmtree(rooms / own / "results/voice")
    model = ("--model-version", own, "--pretrained-ckpt-path", Path("..", BASES[own]))
    arguments = ("--data-dir", DATA, *model, "--train", "--max-steps", 1, *TRAINING, "--resume-latest")
    said = run("finetune_tts.py", "--project", "next", *arguments, cwd=rooms / own).stderr
    assert "warm start: weights from results/older/checkpoints/" in said.replace("\\", "/")
    shutil.rmtree(rooms / own / "results/older")
    shutil.rmtree(rooms / own / "results/next")
    message = refuse("finetune_tts.py", "--project", "next", *arguments, cwd=rooms / own)
    assert "finds no checkpoint that fits" in message


# The version that is asked for


@both_ways
def test_a_folder_of_the_other_family_than_asked_for_is_refused(request, tmp_path, own):
    folder = request.getfixturevalue(FAMILIES[OTHER[own]].fixture)
    asked = ("--model-version", own, "--model-path", folder)
    refuse_as(OTHER[own], "cli_tts.py", "Hi.", *asked, "-o", "out/x.wav", cwd=tmp_path)


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("user", ["train", "extract", "merge", "serve", "doctor"])
def test_no_program_takes_a_folder_of_the_other_family_than_asked_for(rooms, own, user):
    version = ("--model-version", own)
    base = ("--pretrained-ckpt-path", BASES[OTHER[own]])
    project = ("finetune_tts.py", "--project", "new", "--data-dir", Path(own, DATA), *version, *base)
    command = {
        "train": (*project, "--train"),
        "extract": (*project, "--extract-tokens"),
        "merge": (*merging(OTHER[own]), *version),
        "serve": ("serve", *version, "--model-path", BASES[OTHER[own]], "--port", 0),
        "doctor": ("finetune_tts.py", "--doctor", *version, *base),
    }[user]
    before = contents(rooms)
    refuse_as(OTHER[own], *command, cwd=rooms)
    assert contents(rooms) == before


@pytest.mark.slow
def test_without_a_version_the_folder_says_which_it_is(rooms):
    for own, family in FAMILIES.items():
        for name, model in (("base", BASES[own]), ("voice", Path(own, MERGED))):
            run("cli_tts.py", "Hi.", "--model-path", model, "-o", f"{own}-{name}.wav", *SHORT, cwd=rooms)
            assert soundfile.info(rooms / f"{own}-{name}.wav").samplerate == family.sample_rate


@pytest.mark.slow
def test_two_projects_side_by_side_are_each_of_its_own_family(tmp_path, small_base, small_s1_base):
    """Both bases lie where they are looked for, both voices are made in one folder, and each merge finds its own base."""
    put_base(tmp_path, small_base)
    put_base(tmp_path, small_s1_base, FAMILIES["s1-mini"].place)
    for version, family in FAMILIES.items():
        data_set(tmp_path / f"training_data/{version}", 4, codebooks=family.codebooks)
        arguments = ("--project", version, "--data-dir", f"training_data/{version}", *family.flags, "--offline")
        run("finetune_tts.py", *arguments, "--train", "--max-steps", 2, *TRAINING, cwd=tmp_path)
    for version, family in FAMILIES.items():
        run("finetune_tts.py", "--project", version, "--merge-weights", cwd=tmp_path)
        voice = json.loads((tmp_path / f"checkpoints/{version}-merged/voice.json").read_text(encoding="utf-8"))
        assert Path(voice["base"]) == family.place and voice["model_version"] == version
        for flags in (family.flags, ("--model-path", f"checkpoints/{version}-merged")):
            run("cli_tts.py", "Hi.", *flags, "-o", "out.wav", *SHORT, cwd=tmp_path)
            assert soundfile.info(tmp_path / "out.wav").samplerate == family.sample_rate
    run("cli_tts.py", "Hi.", "-o", "out.wav", *SHORT, cwd=tmp_path)
    assert soundfile.info(tmp_path / "out.wav").samplerate == FAMILIES["1.5"].sample_rate, "1.5 is the default"


# What is wrong with S1-mini's own files


@pytest.mark.slow
def test_without_a_list_of_special_tokens_the_familys_own_is_used(tmp_path):
    """Of 4096 semantic tokens, as the released model has; the list is optional on the hub."""
    write_s1_folder(tmp_path / "base", vocab_size=4480, codebook_size=4096)
    (tmp_path / "base/special_tokens.json").unlink()
    run("cli_tts.py", "Hi.", "--model-path", "base", "-o", "out.wav", *SHORT, cwd=tmp_path)
    assert soundfile.info(tmp_path / "out.wav").samplerate == FAMILIES["s1-mini"].sample_rate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("id", "the id 9999"),
        ("order", "but token"),
        ("missing token", "<|im_end|>"),
        ("torn", "no list of special tokens"),
        ("list of names", "no list of special tokens"),
        ("gone, and the model smaller than the family's list", "tokenizer.tiktoken does not fit"),
    ],
)
def test_special_tokens_that_cannot_be_right_are_refused_by_whoever_reads_them(rooms, damage, told):
    path = rooms / BASES["s1-mini"] / "special_tokens.json"
    tokens = json.loads(path.read_text(encoding="utf-8"))
    if damage == "id":
        tokens["<|voice|>"] = 9999
    elif damage == "order":
        tokens = dict(sorted(tokens.items()))
    elif damage == "missing token":
        tokens = {name: 320 + place for place, name in enumerate(name for name in tokens if name != "<|im_end|>")}
    path.write_text(json.dumps([*tokens] if damage == "list of names" else tokens), encoding="utf-8")
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage.startswith("gone"):
        path.unlink()
    for user in (speaking, training, merging):
        message = refuse(*map(str, user("s1-mini")), cwd=rooms)
        assert told in message and not (rooms / "out").exists()
    assert not list(rooms.glob("results/new/checkpoints/*")) and leftovers(rooms) == []


@pytest.mark.slow
@pytest.mark.parametrize("torn", [0, 100, -1], ids=["empty", "head only", "all but a byte"])
@pytest.mark.parametrize("user", ["speak", "extract", "merge"])
def test_a_torn_codec_is_refused(rooms, torn, user):
    path = rooms / BASES["s1-mini"] / "codec.pth"
    path.write_bytes(path.read_bytes()[:torn])
    before = contents(rooms)
    command = {
        "speak": speaking("s1-mini"),
        "extract": ("extract_vq", Path("s1-mini", DATA), "--force", "--config-name", path.with_suffix(".yaml"),
                    "--checkpoint-path", path),
        "merge": (*merging("s1-mini"), "--reference", RECORDING),
    }[user]  # fmt: skip
    assert "codec.pth" in refuse(*map(str, command), cwd=rooms)
    assert {
        name for name in contents(rooms) if Path(name).suffix in MADE and not name.startswith("out/")
    } <= before.keys()
    assert leftovers(rooms) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["missing", "extra", "misshapen"])
@pytest.mark.parametrize("file", ["model.pth", "codec.pth"])
def test_weights_that_are_not_those_of_the_config_are_refused_by_name(rooms, file, kind):
    path = rooms / BASES["s1-mini"] / file
    state = torch.load(path, weights_only=True)
    name = "norm.weight" if file == "model.pth" else "quantizer.semantic_quantizer.quantizers.0.codebook.weight"
    if kind == "missing":
        del state[name]
    elif kind == "extra":
        name = "surprise.weight"
        state[name] = torch.zeros(3)
    else:
        state[name] = torch.zeros(*state[name].shape, 3)
    torch.save(state, path)
    message = refuse(*map(str, speaking("s1-mini")), cwd=rooms)
    assert name in message and file in message and not (rooms / "out").exists()


@pytest.mark.slow
def test_a_prompt_that_leaves_no_room_is_refused(rooms):
    codes = np.load(rooms / "s1-mini" / MERGED / "reference.npy")
    np.save(rooms / "endless.npy", np.tile(codes, 4096 // codes.shape[1] + 1))
    message = refuse(*speaking("s1-mini", "--prompt-tokens", "endless.npy", "--prompt-text", "Words."), cwd=rooms)
    assert "too long" in message and "4096" in message and not list(rooms.glob("out/*"))
