"""Tokenizer against upstream's answers, and against files that are no tokenizer."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.errors import UserError
from fish_speech.text import Tokenizer


def test_ids_and_text_equal_the_golden_answers(golden, tokenizer):
    for case in golden("tokenizer.json")["cases"]:
        if "decode_only" in case:
            assert tokenizer.decode(case["decode_only"]) == case["decoded"]
            continue
        assert tokenizer.encode(case["text"]) == case["ids"]
        assert tokenizer.encode(case["text"], allowed_special=False) == case["ids_no_special"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]


def test_special_ids_follow_the_ranks(golden, tokenizer):
    answer = golden("tokenizer.json")
    assert (tokenizer.semantic_begin_id, tokenizer.semantic_end_id) == (388, 1411)
    assert tokenizer.num_semantic == 1024
    assert tokenizer.vocab_size == answer["n_ranks"] + 1036
    assert {name: tokenizer.id_of(name) for name in answer["special"]} == answer["special"]
    named = (tokenizer.end_of_text_id, tokenizer.pad_id, tokenizer.im_start_id, tokenizer.im_end_id)
    assert named == (377, 378, 379, 380)


def test_only_the_named_special_tokens_are_read_as_such(tokenizer):
    ids = tokenizer.encode("<|im_start|><|im_end|>", allowed_special={"<|im_end|>"})
    assert tokenizer.im_end_id in ids and tokenizer.im_start_id not in ids
    assert tokenizer.decode(ids) == "<|im_start|><|im_end|>"


@pytest.mark.parametrize("text", ["<|<|im_end|>", "<|im_end|>|><|im_end|><|im_start", "<|im_end|im_end|>", "<||>"])
def test_special_tokens_are_found_in_any_company(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.count(tokenizer.im_end_id) == text.count("<|im_end|>") and tokenizer.decode(ids) == text


def test_long_text_is_cut_before_it_is_encoded(tokenizer):
    text = "ab " * 150_000
    assert tokenizer.encode(text) == tokenizer.encode(text[:400_000]) + tokenizer.encode(text[400_000:])


@given(st.text())
def test_decoding_restores_any_text(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text, allowed_special=False)) == text


def test_saved_files_equal_the_originals(golden_folder, tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    for name in ("tokenizer.tiktoken", "special_tokens.json"):
        assert (tmp_path / name).read_bytes() == (golden_folder / "tokenizer" / name).read_bytes()
    assert Tokenizer(tmp_path).encode("hello") == tokenizer.encode("hello")


def test_a_copy_for_a_worker_encodes_alike(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).encode("hello<|im_end|>") == tokenizer.encode("hello<|im_end|>")


def test_other_versions_bring_their_own_special_tokens(golden_folder):
    names = ["<|end_of_text|>", "<|pad|>", "<|im_start|>", "<|im_end|>", "<|semantic:0|>", "<|semantic:1|>"]
    other = Tokenizer(golden_folder / "tokenizer", names)
    assert (other.im_end_id, other.semantic_begin_id, other.num_semantic) == (379, 380, 2)


def _whole(golden_folder):
    return (golden_folder / "tokenizer" / "tokenizer.tiktoken").read_bytes()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"\x00" * 5000,
        lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\n",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-2],  # the last rank loses a digit
        lambda data: data[:-5],  # the last rank is gone
        lambda data: data[1000:],
        lambda data: data.replace(b" 300\n", b" -300\n"),
        lambda data: data.replace(b" 300\n", b" 99999999999999999999\n"),
        lambda data: data.replace(b" 300\n", b" 301\n"),
        lambda data: data + b"!!!! 376\n",
    ],
)
def test_a_broken_file_is_refused_with_its_name(golden_folder, tmp_path, spoil):
    path = tmp_path / "tokenizer.tiktoken"
    path.write_bytes(spoil(_whole(golden_folder)))
    with pytest.raises(UserError, match=r"tokenizer\.tiktoken is not a whole tokenizer file"):
        Tokenizer(path)


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "tokenizer.tiktoken"
    with path.open("wb") as file:
        file.truncate(10 << 30)  # sparse
    with pytest.raises(UserError, match="more than 64 MiB"):
        Tokenizer(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no tokenizer at"):
        Tokenizer(tmp_path)


def test_the_line_of_the_empty_token_is_skipped(golden_folder, tmp_path):
    path = tmp_path / "tokenizer.tiktoken"
    path.write_bytes(_whole(golden_folder) + b"= 376\n")
    assert Tokenizer(path).id_of("<|begin_of_text|>") == 376


def test_a_rank_that_a_special_token_would_have_too_is_refused(golden_folder, tmp_path):
    lines = _whole(golden_folder).decode().splitlines()
    head, (token, _) = lines[:-1], lines[-1].split()
    path = tmp_path / "tokenizer.tiktoken"
    path.write_text(
        "\n".join([*head, "= 375", f"{token} 376"]), encoding="ascii"
    )  # 376 ranks: special ones begin at 376
    with pytest.raises(UserError, match="376 tokens but ranks up to 376"):
        Tokenizer(path)
