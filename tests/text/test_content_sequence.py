"""Layout of S1's prompts and training examples against upstream's answers."""

import numpy as np
import pytest

from fish_speech.errors import UserError
from fish_speech.text import (
    IGNORED,
    check_example_format,
    packed_example,
    reference_block,
    request_block,
    speech_prompt,
    system_block,
)
from fish_speech.text.content_sequence import ContentSequence, Part


@pytest.fixture(scope="module")
def sequences(s1_golden):
    return s1_golden("sequences.json")


def part_of(given: dict) -> Part:
    content = {"text": lambda: given["text"], "tokens": lambda: given["tokens"], "vq": lambda: np.array(given["codes"])}
    return Part(content[given["type"]](), given.get("cal_loss", False))


def sequence_of(spec: dict) -> ContentSequence:
    parts = [part_of(given) for given in spec["parts"]]
    sequence = ContentSequence.of(spec["modality"], *parts) if spec["modality"] else ContentSequence(tuple(parts))
    for more in spec["append"]:
        sequence = sequence.append([part_of(given) for given in more["parts"]], more["add_end"], more["speaker"])
    return sequence


@pytest.mark.parametrize("number", range(3))
def test_a_content_sequence_equals_the_golden_one(s1_tokenizer, sequences, number):
    answer = sequences["content"][number]
    sequence = sequence_of(answer["spec"])
    ignored = [s1_tokenizer.id_of(name) for name in answer["spec"].get("ignore_loss_tokens", [])]
    for name, shift in (("shifted", True), ("unshifted", False)):
        encoded = sequence.encode(s1_tokenizer, shift, ignored)
        assert encoded.tokens.tolist() == answer[name]["tokens"]
        assert encoded.labels.tolist() == answer[name]["labels"]
        assert encoded.is_code_token.astype(int).tolist() == answer[name]["vq_mask_tokens"]
        assert encoded.is_code_label.astype(int).tolist() == answer[name]["vq_mask_labels"]
    values = np.array(answer["for_inference"])
    np.testing.assert_array_equal(sequence.matrix(s1_tokenizer, len(values) - 1), values)


@pytest.mark.parametrize("number", range(4))
def test_an_example_in_the_released_format_equals_the_golden_one(s1_tokenizer, sequences, number):
    answer = sequences["training"][number]
    tokens, labels = packed_example(s1_tokenizer, answer["text"], np.array(answer["codes"]), example_format="released")
    assert tokens.dtype == labels.dtype == np.int64
    np.testing.assert_array_equal(tokens, answer["tokens"])
    np.testing.assert_array_equal(labels, answer["labels"])


def test_an_example_without_its_text_equals_the_golden_one(s1_tokenizer, sequences):
    codes = np.array(sequences["training"][0]["codes"])
    tokens, labels = packed_example(s1_tokenizer, "left out", codes, skip_text=True, example_format="released")
    np.testing.assert_array_equal(tokens, sequences["training_skip_text"]["tokens"])
    np.testing.assert_array_equal(labels, sequences["training_skip_text"]["labels"])


@pytest.mark.parametrize("number", range(3))
def test_a_prompt_equals_the_golden_one_with_its_references(s1_tokenizer, sequences, number):
    answer = sequences["inference"][number]
    references = list(zip(answer["prompt_text"], map(np.array, answer["prompt_codes"])))
    prompt = speech_prompt(s1_tokenizer, answer["text"], 4, references)
    assert prompt.dtype == np.int64
    np.testing.assert_array_equal(prompt, answer["values"])


def test_an_example_is_the_prompt_of_its_text_then_its_frames_and_the_end(s1_tokenizer, sequences):
    for answer in sequences["training"]:
        codes = np.array(answer["codes"])
        tokens, labels = packed_example(s1_tokenizer, answer["text"], codes)
        prompt = speech_prompt(s1_tokenizer, answer["text"], len(codes))
        np.testing.assert_array_equal(tokens[:, : prompt.shape[1]], prompt)
        frames = tokens[:, prompt.shape[1] :]
        np.testing.assert_array_equal(frames, [codes[0] + s1_tokenizer.semantic_begin_id, *codes])
        assert (labels[:, : prompt.shape[1] - 1] == IGNORED).all()
        np.testing.assert_array_equal(labels[:, prompt.shape[1] - 1 : -1], frames)
        assert labels[0, -1] == s1_tokenizer.im_end_id


def test_a_reference_is_cleaned_as_training_texts_are(s1_tokenizer, sequences):
    codes = np.array(sequences["training"][0]["codes"])
    loose = reference_block(s1_tokenizer, " it’s,, so \n", codes[None], 3)
    np.testing.assert_array_equal(loose, reference_block(s1_tokenizer, "it's, so", codes[:3], 3))
    np.testing.assert_array_equal(
        request_block(s1_tokenizer, " it’s,, so \n", 3), request_block(s1_tokenizer, "it's, so", 3)
    )


def test_markers_of_mood_stand_in_prompts_and_examples_as_they_are_written(s1_tokenizer):
    text = "(in a hurry tone) Wait! (laughing) No, go."
    tokens, _ = packed_example(s1_tokenizer, text, np.zeros((2, 3), int))
    assert text in s1_tokenizer.decode(tokens[0])
    assert text in s1_tokenizer.decode(request_block(s1_tokenizer, text, 2)[0])


@pytest.mark.parametrize("codes", [np.zeros((7, 3), int), np.zeros(8, int), np.full((8, 3), 1100), np.full((8, 3), -1)])
def test_unfit_reference_codes_are_refused(s1_tokenizer, codes):
    with pytest.raises(ValueError):
        reference_block(s1_tokenizer, "hello", codes, 8)


def test_families_open_their_prompts_differently(tokenizer, s1_tokenizer):
    assert s1_tokenizer.decode(system_block(s1_tokenizer, 4)[0]) == "<|interleave|>"
    assert tokenizer.decode(system_block(tokenizer, 4)[0]).startswith("<|im_start|>system\n")


def test_a_format_of_examples_that_a_family_lacks_is_refused(tokenizer, s1_tokenizer):
    check_example_format(s1_tokenizer, "released")
    check_example_format(tokenizer, "default")
    with pytest.raises(UserError, match="no training examples in the format 'released'"):
        check_example_format(tokenizer, "released")
    with pytest.raises(UserError, match="default or released"):
        check_example_format(s1_tokenizer, "relaesed")
