"""Special tokens of the families, and a folder's own list of them."""

import json
import pickle
import shutil

import pytest

from fish_speech.errors import UserError
from fish_speech.text import Tokenizer
from fish_speech.text.special_tokens import SPECIAL_TOKENS_S1, family_of_tokens
from fish_speech.versions import FISH, S1

S1_CONFIG = {"model_type": "dual_ar", "attention_qk_norm": True}
FISH_CONFIG = {"model_type": "dual_ar", "share_codebook_embeddings": True}


@pytest.fixture
def folder(s1_golden_folder, tmp_path):
    """A model folder with the golden tokenizer files and a config of S1."""
    for name in ("tokenizer.tiktoken", "special_tokens.json"):
        shutil.copy(s1_golden_folder / "tokenizer" / name, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(S1_CONFIG), encoding="utf-8")
    return tmp_path


def listed(folder):
    return json.loads((folder / "special_tokens.json").read_text(encoding="utf-8"))


def write_list(folder, names):
    (folder / "special_tokens.json").write_text(json.dumps(names), encoding="utf-8")


def test_ids_equal_the_golden_answers(s1_golden, s1_tokenizer):
    facts = s1_golden("manifest.json")["tokenizer"]
    assert s1_tokenizer.family == S1
    assert (s1_tokenizer.semantic_begin_id, s1_tokenizer.semantic_end_id) == (
        facts["semantic_begin_id"],
        facts["semantic_end_id"],
    )
    assert s1_tokenizer.im_end_id == facts["im_end"]
    assert s1_tokenizer.vocab_size == facts["ranks"] + facts["special"] == facts["vocab_size_used_by_models"]
    for case in s1_golden("sequences.json")["encode"]:
        assert s1_tokenizer.encode(case["text"]) == case["ids"]
        assert s1_tokenizer.encode(case["text"], allowed_special=False) == case["ids_without_special"]
        assert s1_tokenizer.decode(case["ids"]) == case["text"]


def test_the_released_list_has_its_documented_places():
    places = {name: 151643 + place for place, name in enumerate(SPECIAL_TOKENS_S1)}
    assert len(places) == 15 + 4096
    known = {
        "<|begin_of_text|>": 151643, "<|end_of_text|>": 151644, "<|pad|>": 151645, "<|im_end|>": 151647,
        "<|phoneme_start|>": 151648, "<|tool_call_end|>": 151651, "<|text|>": 151652, "<|interleave|>": 151654,
        "<|audio|>": 151657, "<|semantic:0|>": 151658, "<|semantic:4095|>": 155753,
    }  # fmt: skip
    assert {name: places[name] for name in known} == known
    assert family_of_tokens(SPECIAL_TOKENS_S1) == S1


def test_the_file_and_its_folder_give_the_same_tokenizer(folder, s1_tokenizer):
    for path in (folder, folder / "tokenizer.tiktoken"):
        assert Tokenizer(path).special_tokens == s1_tokenizer.special_tokens


def test_a_folder_without_a_list_takes_that_of_its_family(folder):
    (folder / "special_tokens.json").unlink()
    tokenizer = Tokenizer(folder)
    assert tokenizer.family == S1 and tokenizer.num_semantic == 4096
    assert tokenizer.id_of("<|interleave|>") == 320 + 11
    (folder / "config.json").write_text(json.dumps(FISH_CONFIG), encoding="utf-8")
    tokenizer = Tokenizer(folder)
    assert tokenizer.family == FISH and tokenizer.num_semantic == 1024


def test_the_list_of_a_fish_speech_folder_is_not_read(folder):
    (folder / "config.json").write_text(json.dumps(FISH_CONFIG), encoding="utf-8")
    for content in ("not JSON", '{"<|im_end|>": 3}'):
        (folder / "special_tokens.json").write_text(content, encoding="utf-8")
        assert Tokenizer(folder).family == FISH and Tokenizer(folder).num_semantic == 1024


def test_without_a_config_the_listed_tokens_tell_the_family(folder):
    (folder / "config.json").unlink()
    assert Tokenizer(folder).family == S1
    (folder / "special_tokens.json").write_text("torn", encoding="utf-8")
    assert Tokenizer(folder).family == FISH


def test_a_saved_tokenizer_and_a_pickled_one_are_the_same(s1_tokenizer, tmp_path):
    s1_tokenizer.save(tmp_path)
    for again in (Tokenizer(tmp_path), pickle.loads(pickle.dumps(s1_tokenizer))):
        assert (again.family, again.special_tokens) == (S1, s1_tokenizer.special_tokens)
        assert list(again.special_tokens) == list(s1_tokenizer.special_tokens)
        assert again.encode("(sad) oh<|im_end|>") == s1_tokenizer.encode("(sad) oh<|im_end|>")


def spoil_id(names):
    return {**names, "<|im_end|>": 7}


def spoil_order(names):
    return dict(sorted(names.items()))


def spoil_semantic_order(names):
    """As a list whose semantic tokens were sorted as text and numbered anew."""
    head = [name for name in names if "semantic" not in name]
    semantic = sorted(name for name in names if "semantic" in name)
    return {name: 320 + place for place, name in enumerate([*head, *semantic])}


def spoil_need(names):
    kept = [name for name in names if name != "<|interleave|>"]
    return {name: 320 + place for place, name in enumerate(kept)}


@pytest.mark.parametrize(
    "spoil, why",
    [
        (spoil_id, "it gives <|im_end|> the id 7, but token 4 of its list has 324"),
        (spoil_order, "it gives <|audio_end|> the id 333, but token 0 of its list has 320"),
        (spoil_semantic_order, "semantic tokens are not one row"),
        (spoil_need, "it lacks <|interleave|>"),
        (lambda names: {**names, "im_end": 1435}, "'im_end' is not of the form"),
        (lambda names: {**names, "<|\ud800|>": 1435}, r"'<|\ud800|>' is not of the form"),
        (lambda names: {**names, "<|more|>": "1435"}, "the id '1435'"),
        (lambda names: list(names), "does not hold an object"),
        (lambda names: {}, "it lacks"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_with_the_reason(folder, spoil, why):
    write_list(folder, spoil(listed(folder)))
    with pytest.raises(UserError, match=r"special_tokens\.json does not fit") as caught:
        Tokenizer(folder)
    assert why in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"<|a|>": 320', b'{"<|a|>": 320, "<|a|>": 321}', b"[" * 99999])
def test_a_torn_list_is_refused(folder, content):
    (folder / "special_tokens.json").write_bytes(content)
    with pytest.raises(UserError, match="no list of special tokens"):
        Tokenizer(folder)


def test_a_huge_list_is_refused_unread(folder):
    with (folder / "special_tokens.json").open("wb") as file:
        file.truncate(10 << 30)  # sparse
    with pytest.raises(UserError, match="more than 8 MiB"):
        Tokenizer(folder)


def test_the_tokenizer_of_another_family_than_the_model_is_refused(tmp_path, s1_golden_folder):
    for name in ("tokenizer.tiktoken", "special_tokens.json"):
        (tmp_path / name).write_bytes((s1_golden_folder / "tokenizer" / name).read_bytes())
    assert Tokenizer(tmp_path).family == S1
    (tmp_path / "config.json").write_text('{"share_codebook_embeddings": true}', encoding="utf-8")
    with pytest.raises(UserError, match="the tokenizer of OpenAudio S1-mini") as refused:
        Tokenizer(tmp_path)
    assert "Fish Speech 1.5" in refused.value.why
