"""Layout of prompts and training examples against upstream's answers."""

import numpy as np
import pytest

from fish_speech.text import (
    packed_example,
    reference_block,
    request_block,
    speech_prompt,
    system_block,
)
from fish_speech.text.conversation import Conversation, Message


@pytest.fixture(scope="module")
def answers(golden_folder):
    with np.load(golden_folder / "conversation.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def texts(golden):
    return golden("conversation.json")


@pytest.mark.parametrize("name, skip_text", [("train", False), ("train_skip", True)])
def test_a_packed_example_equals_the_golden_one(tokenizer, answers, texts, name, skip_text):
    tokens, labels = packed_example(tokenizer, texts["train_text"], answers["train_codes"], skip_text)
    assert tokens.dtype == labels.dtype == np.int64
    np.testing.assert_array_equal(tokens, answers[f"{name}_tokens"])
    np.testing.assert_array_equal(labels, answers[f"{name}_labels"])
    if not skip_text:
        assert tokenizer.decode(tokens[0]) == texts["decoded_train_row0"]


def test_several_sentences_are_joined_by_a_space(tokenizer, answers):
    joined = packed_example(tokenizer, "one two", answers["train_codes"])
    parts = packed_example(tokenizer, ["one", "two"], answers["train_codes"])
    np.testing.assert_array_equal(joined[0], parts[0])


def test_inference_blocks_equal_the_golden_ones(tokenizer, answers, texts):
    system = system_block(tokenizer, 8)
    reference = reference_block(tokenizer, texts["ref_text"], answers["ref_codes"], 8)
    request = request_block(tokenizer, texts["new_text"], 8)
    for block, name in ((system, "system"), (reference, "ref"), (request, "new")):
        assert block.dtype == np.int64
        np.testing.assert_array_equal(block, answers[name])
    whole = speech_prompt(tokenizer, texts["new_text"], 8, [(texts["ref_text"], answers["ref_codes"])])
    np.testing.assert_array_equal(whole, answers["full_prompt"])
    assert tokenizer.decode(whole[0]) == texts["decoded_full_prompt_row0"]


def test_a_reference_may_have_a_batch_axis_and_more_rows(tokenizer, answers, texts):
    codes = np.concatenate([answers["ref_codes"], answers["ref_codes"]])[None]  # (1, 16, frames)
    block = reference_block(tokenizer, texts["ref_text"], codes, 8)
    np.testing.assert_array_equal(block, answers["ref"])


@pytest.mark.parametrize("codes", [np.zeros((7, 3), int), np.zeros(8, int), np.full((8, 3), 1024), np.full((8, 3), -1)])
def test_unfit_reference_codes_are_refused(tokenizer, codes):
    with pytest.raises(ValueError):
        reference_block(tokenizer, "hello", codes, 8)


@pytest.fixture
def multi(answers, texts):
    first = Message("user", [texts["train_text"]], modality="text")
    parts = [answers["ref_codes"], "ok", answers["train_codes"]]
    second = Message("assistant", parts, with_loss=True, modality="voice", ignore_header_loss=False)
    third = Message("assistant", ["end"], with_loss=True, modality="interleave", add_im_end=False)
    return Conversation([first, second, third])


def test_a_shifted_conversation_equals_the_golden_one(tokenizer, answers, multi):
    encoded = multi.encode(tokenizer, shift=True)
    np.testing.assert_array_equal(encoded.tokens, answers["multi_tokens"])
    np.testing.assert_array_equal(encoded.labels, answers["multi_labels"])
    np.testing.assert_array_equal(encoded.is_code_token, answers["multi_vq_mask_tokens"])
    np.testing.assert_array_equal(encoded.is_code_label, answers["multi_vq_mask_labels"])


def test_an_unshifted_conversation_equals_the_golden_one(tokenizer, answers, multi):
    # The golden run left the label of <|im_end|> out.
    encoded = multi.encode(tokenizer, shift=False, ignored_ids=[tokenizer.im_end_id])
    np.testing.assert_array_equal(encoded.tokens, answers["multi_noshift_tokens"])
    np.testing.assert_array_equal(encoded.labels, answers["multi_noshift_labels"])
    np.testing.assert_array_equal(encoded.is_code_token, answers["multi_noshift_vq_mask_tokens"])
    np.testing.assert_array_equal(encoded.is_code_label, answers["multi_noshift_vq_mask_labels"])
    np.testing.assert_array_equal(multi.matrix(tokenizer, 8), answers["multi_inference"])
