"""The folder of an untrained model: what is in it, and that training can start from it."""

import json
from pathlib import Path

import pytest

from fish_speech import configs
from fish_speech.errors import UserError
from fish_speech.models import load_dual_ar, read_config
from fish_speech.new_model import main, make_folder
from fish_speech.text import Tokenizer

SENTENCES = ("Please hold the line.", "The line is open.", "Nobody is here.")


@pytest.fixture
def labs(tmp_path):
    for number, text in enumerate(SENTENCES):
        (tmp_path / "corpus/anna").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"corpus/anna/{number}.lab").write_text(text + "\n", encoding="utf-8")
    return tmp_path / "corpus"


def make(labs, output, *more):
    assert main(["--sentences", str(labs), "--output", str(output), *more]) == 0
    return output


def test_a_new_folder_loads_without_weights_in_the_shape_asked_for(labs, tmp_path):
    model = load_dual_ar(make(labs, tmp_path / "m", "--merges", "30", "--codebooks", "5"), load_weights=False)
    assert model.config.num_codebooks == 5 and model.config.n_layer == 6 and model.config.tie_word_embeddings
    assert model.config.vocab_size == model.tokenizer.vocab_size == 256 + 30 + 12 + 1024
    assert model.semantic_begin_id == 256 + 30 + 12


def test_a_new_folder_of_s1_has_its_tokens_and_prompts(labs, tmp_path):
    folder = make(labs, tmp_path / "m", "--model", "s1_mini")
    config, tokenizer = read_config(folder), Tokenizer(folder)
    assert config.family == tokenizer.family == "s1"
    assert config.vocab_size == tokenizer.vocab_size and len(tokenizer.special_tokens) == 15 + 4096
    assert (config.num_codebooks, config.codebook_sizes[:2]) == (10, (4096, 1024))
    assert len(tokenizer.encode("<|speaker:0|>")) == 5  # "<|", "speaker", ":", "0", "|>"


def test_a_small_s1_folder_loads_without_weights(tmp_path):
    shape = {
        "dim": 32, "n_layer": 1, "n_head": 2, "head_dim": 24, "intermediate_size": 40, "n_fast_layer": 1,
        "codebook_size": 50, "num_codebooks": 3, "attention_qk_norm": True, "tie_word_embeddings": False,
    }  # fmt: skip
    make_folder(tmp_path / "m", list(SENTENCES), shape, 5)
    model = load_dual_ar(tmp_path / "m", load_weights=False)
    assert model.semantic_end_id - model.semantic_begin_id == 49
    assert model.config.vocab_size == 256 + 5 + 15 + 50
    assert model.layers[0].attention.wo.weight.shape == (32, 48)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text_config": {}}, "text_config"),
        ({"codebook_size": 1025}, "semantic tokens"),
        ({"codebook_size": 4097, "attention_qk_norm": True}, "semantic tokens"),
        ({"norm_fastlayer_input": True}, "Fish Audio S2"),
        ({"model_type": "fish_qwen3_omni"}, "fish_qwen3_omni"),
    ],
)
def test_shapes_of_other_families_are_refused_before_anything_is_written(tmp_path, changes, said):
    shape = {**configs.read_model("minnow"), **changes}
    with pytest.raises(UserError, match=said):
        make_folder(tmp_path / "m", list(SENTENCES), shape, 5)
    assert not (tmp_path / "m").exists()


def test_the_fixed_words_of_prompts_are_one_token_each(labs, tmp_path):
    tokenizer = Tokenizer(make(labs, tmp_path / "m"))
    for text in ("system\n", "user\n", "assistant\n"):
        assert len(tokenizer.encode(text)) == 2
    assert len(tokenizer.encode("Speak out the provided text.")) == 6


def test_a_folder_and_a_file_of_the_same_sentences_give_equal_files(labs, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(SENTENCES) + "\n\n", encoding="utf-8")
    one, other = make(labs, tmp_path / "one"), make(tmp_path / "list.txt", tmp_path / "other")
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in other.iterdir()}
    assert json.loads((one / "special_tokens.json").read_text(encoding="utf-8"))["<|voice|>"] > 256


def test_a_model_folder_is_not_overwritten_and_nonsense_is_refused(labs, tmp_path):
    folder = make(labs, tmp_path / "m")
    for arguments in ((labs, folder), (tmp_path / "none", tmp_path / "x"), (tmp_path / "m", tmp_path / "x")):
        with pytest.raises(UserError):
            make(*arguments)
    with pytest.raises(UserError, match="minnow"):
        make(labs, tmp_path / "x", "--model", "whale")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("killed_after", ["tokenizer.tiktoken", "special_tokens.json"])
def test_a_folder_of_a_killed_run_is_completed(labs, tmp_path, killed_after):
    whole, cut = make(labs, tmp_path / "whole"), make(labs, tmp_path / "cut", "--merges", "3")
    (cut / "config.json").unlink()
    if killed_after == "tokenizer.tiktoken":
        (cut / "special_tokens.json").unlink()
    make(labs, cut)
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {p.name: p.read_bytes() for p in cut.iterdir()}


def test_weights_without_a_config_are_not_given_another_tokenizer(labs, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/model.pth").write_bytes(b"x")
    with pytest.raises(UserError, match=r"model\.pth"):
        make(labs, tmp_path / "m")


@pytest.mark.parametrize("name", ["corpus/anna/9.lab", "list.txt"])
def test_text_that_is_not_utf_8_is_named(labs, tmp_path, name):
    (tmp_path / name).write_bytes("Fünf Züge.".encode("latin-1"))
    with pytest.raises(UserError, match=Path(name).name) as refused:
        make(labs if name.endswith(".lab") else tmp_path / name, tmp_path / "x")
    assert "UTF-8" in str(refused.value)
    assert not (tmp_path / "x").exists()
