"""Samples and batches of upstream's data sets, rebuilt from the golden shard."""

import itertools
import json
import random

import numpy as np
import pytest

from fish_speech.datasets.collate import Collate
from fish_speech.datasets.protos import read_records, sentence_codes
from fish_speech.text import clean_text, packed_example
from fish_speech.text.encoded import join_examples


@pytest.fixture(scope="module")
def answers(golden_folder):
    with np.load(golden_folder / "dataset_samples.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def speakers(golden_folder):
    """Each speaker's sentences in order."""
    return [list(record.sentences) for record in read_records(golden_folder / "protobuf" / "00000000.protos")]


def example(tokenizer, sentence, skip_text=False):
    return packed_example(tokenizer, clean_text(sentence.texts[0]), sentence_codes(sentence), skip_text)


def test_every_clip_of_the_map_data_set_is_a_golden_sample(tokenizer, answers, speakers, golden_folder):
    facts = json.loads((golden_folder / "dataset_samples.json").read_text())["map"]
    samples = [example(tokenizer, sentence) for sentences in speakers for sentence in sentences]
    random.Random(facts["seed"]).shuffle(samples)
    assert len(samples) == facts["count"]
    for i, (tokens, labels) in enumerate(samples):
        np.testing.assert_array_equal(tokens, answers[f"map{i}_tokens"])
        np.testing.assert_array_equal(labels, answers[f"map{i}_labels"])


@pytest.mark.parametrize("number", range(4))
def test_a_run_of_clips_is_a_golden_sample_of_the_iterable_data_set(tokenizer, answers, speakers, number):
    def candidates():  # 40 // 20 = 2 clips in a row, each with or without its text
        for sentences in speakers:
            for pair in itertools.pairwise(sentences):
                for skips in itertools.product([False, True], repeat=2):
                    yield join_examples([example(tokenizer, *one) for one in zip(pair, skips)])

    tokens, labels = answers[f"iter{number}_tokens"], answers[f"iter{number}_labels"]
    assert any(np.array_equal(one, tokens) and np.array_equal(two, labels) for one, two in candidates())


@pytest.mark.parametrize("max_length", [100, 1024])
def test_batches_equal_the_golden_ones(tokenizer, answers, max_length):
    samples = [(answers[f"iter{i}_tokens"], answers[f"iter{i}_labels"]) for i in range(3)]
    batch = Collate(tokenizer.end_of_text_id, max_length)(samples)
    assert set(batch) == {"inputs", "attention_masks", "labels"}
    for name, tensor in batch.items():
        expected = answers[f"collate{max_length}_{name}"]
        assert str(tensor.dtype).endswith(str(expected.dtype))
        np.testing.assert_array_equal(tensor.numpy(), expected)
