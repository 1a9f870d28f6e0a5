"""Shards of upstream's format: read, write, and refuse what is torn."""

import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fish_speech.datasets.protos import framed, read_records, record_head, record_sentence, sentence_codes
from fish_speech.datasets.text_data_pb2 import Semantics, Sentence, TextData
from fish_speech.errors import UserError


def test_the_golden_shard_has_its_content(golden_folder):
    content = json.loads((golden_folder / "protobuf" / "content.json").read_text(encoding="utf-8"))
    records = list(read_records(golden_folder / "protobuf" / "00000000.protos"))
    for record, expected in zip(records, content, strict=True):
        assert (record.source, record.name) == (expected["source"], expected["name"])
        for sentence, answer in zip(record.sentences, expected["sentences"], strict=True):
            assert list(sentence.texts) == answer["texts"]
            assert sentence_codes(sentence).tolist() == answer["semantics"]


sentences = st.builds(
    Sentence,
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=2),
    semantics=st.lists(st.builds(Semantics, values=st.lists(st.integers(0, 2**32 - 1), max_size=4)), max_size=3),
)
records = st.builds(TextData, source=st.just("folder"), name=st.just("anna"), sentences=st.lists(sentences, max_size=3))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(records, max_size=4))
def test_what_is_written_is_read_back(tmp_path, written):
    path = tmp_path / "a.protos"
    path.write_bytes(b"".join(map(framed, written)))
    assert list(read_records(path)) == written


def test_joined_pieces_are_the_serialised_record():
    codes = np.arange(6, dtype=np.uint16).reshape(2, 3)
    sentence = Sentence(texts=["a", "b"], semantics=[Semantics(values=row) for row in codes.tolist()])
    whole = TextData(source="folder", name="anna", sentences=[sentence, sentence]).SerializeToString()
    assert record_head("folder", "anna") + record_sentence(["a", "b"], codes) * 2 == whole


GOOD = framed(TextData(name="anna", sentences=[Sentence(texts=["hello"])]))


@pytest.mark.parametrize(
    "data, why",
    [
        (GOOD + GOOD[:2], "inside the length of record 2"),
        (GOOD + GOOD[:-1], "record 2 claims"),
        (GOOD + b"\xff\xff\xff\xff" + GOOD, "record 2 claims 4294967295 bytes"),
        (b"\x00" * 64, "record 1 claims 0 bytes"),
        (struct.pack("<I", 1 << 29) + b"x", "the file has 1 left"),
        (struct.pack("<I", 4) + b"\xff\xff\xff\xff", "not a TextData"),
    ],
)
def test_a_torn_shard_is_refused_with_the_place(tmp_path, data, why):
    path = tmp_path / "00000000.protos"
    path.write_bytes(data)
    with pytest.raises(UserError, match=why) as caught:
        list(read_records(path))
    assert "00000000.protos" in caught.value.what and "build_dataset" in caught.value.fix


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no shard .*gone\.protos"):
        list(read_records(tmp_path / "gone.protos"))
