"""S1's training data: upstream's answers rebuilt from its shard, and what the product trains on instead."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.build_dataset import build
from fish_speech.configs import CONFIGS
from fish_speech.datasets.code_origin import whose_codes
from fish_speech.datasets.collate import Collate
from fish_speech.datasets.datamodule import SemanticDataModule
from fish_speech.datasets.protos import read_records, sentence_codes
from fish_speech.datasets.semantic import load_clips
from fish_speech.errors import UserError
from fish_speech.marker_names import MARKERS
from fish_speech.text import IGNORED, Tokenizer, clean_text, packed_example, packed_sample, speech_prompt


@pytest.fixture(scope="module")
def sequences(s1_golden):
    return s1_golden("sequences.json")


@pytest.fixture(scope="module")
def speakers(s1_golden_folder):
    """Texts and codes of each speaker's clips, read from upstream's shard."""
    records = read_records(s1_golden_folder / "sample.protos")
    return {
        record.name: [(clean_text(sentence.texts[0]), sentence_codes(sentence)) for sentence in record.sentences]
        for record in records
    }


def test_cleaned_texts_equal_the_golden_ones(sequences):
    for case in sequences["clean_text"]:
        assert clean_text(case["text"]) == case["out"]


def test_the_golden_shard_holds_the_golden_examples(s1_tokenizer, sequences, speakers):
    clips = [clip for of_speaker in speakers.values() for clip in of_speaker]
    for (text, codes), answer in zip(clips, sequences["training"], strict=True):
        assert text == answer["text"] and codes.tolist() == answer["codes"]
        tokens, labels = packed_example(s1_tokenizer, text, codes, example_format="released")
        np.testing.assert_array_equal(tokens, answer["tokens"])
        np.testing.assert_array_equal(labels, answer["labels"])


def test_clips_of_a_speaker_in_a_row_equal_the_golden_samples(s1_tokenizer, sequences, speakers):
    samples = [packed_sample(s1_tokenizer, clips, "released") for clips in speakers.values()]
    samples.sort(key=lambda sample: sample[0].shape[1])
    for (tokens, labels), answer in zip(samples, sequences["grouped_examples"], strict=True):
        assert tokens.shape[1] == answer["length"]
        np.testing.assert_array_equal(tokens, answer["tokens"])
        np.testing.assert_array_equal(labels, answer["labels"])


@pytest.mark.parametrize("prefix, count, max_length", [("", 2, 4096), ("short_", 3, 20)])
def test_batches_equal_the_golden_ones(s1_tokenizer, s1_golden, sequences, prefix, count, max_length):
    samples = [
        packed_example(s1_tokenizer, answer["text"], np.array(answer["codes"]), example_format="released")
        for answer in sequences["training"][:count]
    ]
    answers = s1_golden("batch.npz")
    for name, tensor in Collate(s1_tokenizer.end_of_text_id, max_length)(samples).items():
        expected = answers[prefix + name]
        assert tensor.numpy().dtype == expected.dtype
        np.testing.assert_array_equal(tensor.numpy(), expected)


def made(text: str, frames: int, codebooks: int = 3):
    codes = (np.arange(codebooks * frames) * 37 + len(text)).reshape(codebooks, frames) % 1000
    return text, codes


some_clips = st.lists(
    st.builds(made, st.text("ab c(!", min_size=1, max_size=8), st.integers(1, 5)), min_size=1, max_size=4
)


@functools.cache
def golden_tokenizer(folder):
    return Tokenizer(folder / "tokenizer")


@settings(max_examples=50)
@given(clips=some_clips)
def test_a_sample_is_the_prompt_for_its_last_clip_behind_the_others_as_references(s1_golden_folder, clips):
    tokenizer = golden_tokenizer(s1_golden_folder)
    clips = [(clean_text(text) or "a", codes) for text, codes in clips]
    tokens, _ = packed_sample(tokenizer, clips)
    *references, (text, codes) = clips
    prompt = speech_prompt(tokenizer, text, 3, references)
    np.testing.assert_array_equal(tokens[:, : prompt.shape[1]], prompt)
    np.testing.assert_array_equal(tokens[1:, prompt.shape[1] :], codes)


@pytest.mark.parametrize("example_format", ["default", "released"])
@settings(max_examples=50)
@given(clips=some_clips)
def test_the_loss_covers_the_codes_and_ends_and_nothing_else(s1_golden_folder, example_format, clips):
    tokenizer = golden_tokenizer(s1_golden_folder)
    tokens, labels = packed_sample(tokenizer, clips, example_format)
    learned = [[*(codes[0] + tokenizer.semantic_begin_id), tokenizer.im_end_id] for _, codes in clips]
    counted = labels[0] != IGNORED
    assert labels[0, counted].tolist() == list(itertools.chain(*learned))
    is_frame = (labels[0] >= tokenizer.semantic_begin_id) & (labels[0] <= tokenizer.semantic_end_id)
    np.testing.assert_array_equal(labels[1:, is_frame], np.concatenate([codes for _, codes in clips], axis=1))
    np.testing.assert_array_equal(labels[1:, ~is_frame & ~counted], IGNORED)
    np.testing.assert_array_equal(tokens[:, 1:][:, is_frame[:-1]], labels[:, :-1][:, is_frame[:-1]])
    assert tokens.shape[1] == sum(packed_sample(tokenizer, [clip], example_format)[0].shape[1] for clip in clips)


@pytest.fixture
def packed(make_clips, tmp_path):
    build(make_clips(tmp_path / "data", {"anna": 24, "bob": 5}), tmp_path / "protos")
    return tmp_path / "protos"


@pytest.mark.parametrize("example_format", ["default", "released"])
def test_an_epoch_holds_every_training_clip_once(packed, s1_tokenizer, example_format):
    data = SemanticDataModule(
        packed, s1_tokenizer, max_length=200, pack_length=150, batch_size=2, example_format=example_format
    )
    data.setup("fit")
    clips = data.dataset.clips
    taken = [next(batches) for batches in [iter(data.train_dataloader())] for _ in range(data.batches_per_epoch())]
    rows = [
        batch["inputs"][i, :, ~batch["attention_masks"][i]].T.contiguous().numpy().tobytes()
        for batch in taken
        for i in range(len(batch["inputs"]))
    ]

    def body(clip):  # what is the same wherever the clip stands
        tokens, _ = packed_example(
            s1_tokenizer, clips.text_of(clip), clips.codes_of(clip), example_format=example_format
        )
        return np.ascontiguousarray(tokens[:, 1:].T).tobytes()

    assert data.held_out and len(data.train_lengths) + len(data.held_out) == 29
    assert len(rows) < len(data.train_lengths)
    joined = b"".join(rows)
    assert all(joined.count(body(clip)) == 1 for clip in data.train_lengths)
    assert not any(body(clip) in joined for clip in data.held_out)
    assert sum(map(len, rows)) == sum(data.train_lengths.values()) * 4 * 8  # rows of a sample, bytes of a number


def test_a_format_that_the_family_lacks_is_a_wrong_request(packed, tokenizer, s1_tokenizer):
    SemanticDataModule(packed, s1_tokenizer, example_format="released")
    with pytest.raises(UserError, match=r"leave data\.example_format out"):
        SemanticDataModule(packed, tokenizer, example_format="released")


def clip_of(tmp_path, codes):
    (tmp_path / "data/anna").mkdir(parents=True)
    np.save(tmp_path / "data/anna/0.npy", codes)
    (tmp_path / "data/anna/0.lab").write_text("Words.", encoding="utf-8")
    build(tmp_path / "data", tmp_path / "protos")
    return tmp_path / "protos"


@pytest.mark.parametrize(
    "code, row, fits",
    [(1099, 0, True), (1100, 0, False), (99, 1, True), (100, 1, False), (99, 2, True), (1000, 2, False)],
)
def test_each_codebook_has_its_own_largest_code(tmp_path, s1_tokenizer, code, row, fits):
    codes = np.zeros((3, 6), np.int32)
    codes[row, 4] = code
    shards = clip_of(tmp_path, codes)
    sizes = (4096, 100, 100)  # the tokenizer has only 1100 semantic tokens
    data = SemanticDataModule(shards, s1_tokenizer, num_codebooks=3, codebook_size=sizes)
    if fits:
        data.setup()
        return
    with pytest.raises(UserError, match=rf"the code {code} in codebook {row}") as caught:
        data.setup()
    assert f"0 to {min(sizes[row], 1100) - 1}" in str(caught.value)


@pytest.mark.parametrize("has, wants, name", [(8, 10, "Fish Speech 1.5"), (10, 8, "OpenAudio S1-mini")])
def test_codes_of_another_version_are_called_by_its_name(tmp_path, has, wants, name):
    shards = clip_of(tmp_path, np.zeros((has, 6), np.int32))
    with pytest.raises(UserError, match=rf"{has} codebooks \(as {name} has\) instead of {wants}"):
        load_clips([shards / "00000000.protos"], wants)


@pytest.mark.parametrize(
    "config, name",
    [("firefly_gan_vq", "Fish Speech 1.5"), ("modded_dac_vq", "OpenAudio S1-mini"), ("minnow", "minnow")],
)
def test_the_numbers_of_codebooks_are_those_of_the_codecs(config, name):
    from fish_speech.models.codec_loading import codec_config, make_codec_config

    assert whose_codes(make_codec_config(codec_config(config), config).codebooks) == f" (as {name} has)"
    assert whose_codes(5) == ""


def test_every_marker_survives_packing_and_stands_in_the_prompt(tmp_path, s1_tokenizer):
    names = [name for of_kind in MARKERS.values() for name in of_kind]
    marked = [f"({name}) So it goes. ({name}) {number}" for number, name in enumerate(names)]
    folder = tmp_path / "data/anna"
    folder.mkdir(parents=True)
    for number, text in enumerate(marked):
        np.save(folder / f"{number:03d}.npy", np.full((3, 90), number, np.int32))
        (folder / f"{number:03d}.lab").write_text(f"{text}\n", encoding="utf-8")
    build(tmp_path / "data", tmp_path / "protos")
    clips = load_clips([tmp_path / "protos/00000000.protos"])
    assert [clips.text_of(clip) for clip in range(len(clips))] == marked
    for clip, text in enumerate(marked):
        assert clean_text(text) == text
        tokens, _ = packed_example(s1_tokenizer, clips.text_of(clip), clips.codes_of(clip))
        prompt = speech_prompt(s1_tokenizer, text, 3)
        np.testing.assert_array_equal(tokens[:, : prompt.shape[1]], prompt)
        assert text in s1_tokenizer.decode(tokens[0])


def test_the_training_yaml_takes_the_tokenizer_from_the_folder():
    import yaml

    config = yaml.safe_load((CONFIGS / "text2semantic_finetune.yaml").read_text(encoding="utf-8"))
    assert config["tokenizer"]["path"] == "${pretrained_ckpt_path}"
    assert config["data"]["example_format"] == "default"
