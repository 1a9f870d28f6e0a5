"""Clips in memory and the held-out share."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.build_dataset import build
from fish_speech.datasets.protos import framed
from fish_speech.datasets.semantic import Clips, hold_out, load_clips
from fish_speech.datasets.shards import find_shards
from fish_speech.datasets.text_data_pb2 import Semantics, Sentence, TextData
from fish_speech.errors import UserError


def store(contents):
    """Clips of (speaker, text); the text decides the codes."""
    codes = np.array([[len(text), 7] for _, text in contents], np.uint16).ravel()
    starts = np.arange(len(contents) + 1) * 2
    return Clips([speaker for speaker, _ in contents], [(text,) for _, text in contents], codes, starts, 2, [])


def test_clips_come_back_as_they_were_packed(make_clips, tmp_path):
    data = make_clips(tmp_path / "data", {"anna": 3, "bob": 2})
    build(data, tmp_path / "out", shard_size=0.00001)
    clips = load_clips(find_shards(tmp_path / "out"))
    assert clips.speakers == ["anna"] * 3 + ["bob"] * 2 and clips.codebooks == 3
    assert clips.text_of(1) == "anna says 1." and clips.codes.dtype == np.uint16
    for clip in range(3):
        np.testing.assert_array_equal(clips.codes_of(clip), np.load(data / "anna" / f"{clip:04d}.npy"))
        assert clips.frames_of(clip) == 3 + clip


def test_each_spelling_has_its_turn():
    clips = Clips(["a"], [("one", "1")], np.zeros(2, np.uint16), np.array([0, 2]), 1, [])
    assert [clips.text_of(0, epoch) for epoch in range(4)] == ["one", "1", "one", "1"]


@pytest.mark.parametrize(
    "rows, why",
    [
        ([[1, 2], [3]], "different lengths"),
        ([[1], [70000]], "code 70000"),
        ([[1], [2], [3]], "3 codebooks instead of 2"),
    ],
)
def test_codes_that_do_not_fit_are_refused(tmp_path, rows, why):
    good = Sentence(texts=["a"], semantics=[Semantics(values=[1]), Semantics(values=[2])])
    bad = Sentence(texts=["b"], semantics=[Semantics(values=row) for row in rows])
    path = tmp_path / "0.protos"
    path.write_bytes(framed(TextData(name="anna", sentences=[good, bad])))
    with pytest.raises(UserError, match=why):
        load_clips([path])


def test_clips_without_codes_or_text_are_left_out_with_the_reason(tmp_path):
    row = Semantics(values=[1])
    sentences = [Sentence(texts=["a"]), Sentence(texts=[" "], semantics=[row]), Sentence(texts=["c"], semantics=[row])]
    path = tmp_path / "0.protos"
    path.write_bytes(framed(TextData(name="anna", sentences=sentences)))
    clips = load_clips([path])
    assert clips.texts == [("c",)] and [reason for _, reason in clips.unusable] == ["no codes", "no text"]


def test_small_speakers_are_trained_on_whole_and_large_ones_give_their_share():
    clips = store([(name, f"{name} {i}") for name, n in (("small", 9), ("ten", 10), ("big", 100)) for i in range(n)])
    held = Counter(clips.speakers[clip] for clip in hold_out(clips, range(len(clips)), 0.05, seed=1))
    assert held == {"ten": 1, "big": 5}


contents = st.lists(st.tuples(st.sampled_from("ab"), st.text("xyz", max_size=2)), max_size=60)


@given(contents, st.integers(0, 2))
def test_no_held_out_clip_has_a_copy_among_the_others(pairs, seed):
    clips = store(pairs)
    held = hold_out(clips, range(len(clips)), 0.05, seed)
    assert held == sorted(set(held)) == hold_out(clips, range(len(clips)), 0.05, seed)
    rest = set(range(len(clips))) - set(held)
    assert not {clips.content_of(clip) for clip in held} & {clips.content_of(clip) for clip in rest}
    for speaker in "ab":
        texts = [text for name, text in pairs if name == speaker]
        if len(texts) >= 10 and len(set(texts)) > 1:
            assert any(clips.speakers[clip] == speaker for clip in held)
    if not any(Counter(name for name, _ in pairs)[speaker] >= 10 for speaker in "ab"):
        assert not held


def test_an_added_clip_hardly_moves_the_choice():
    clips = store([("anna", f"text {i}") for i in range(100)])
    before, after = (hold_out(clips, range(n), 0.05, seed=3) for n in (99, 100))
    assert len(set(before) & set(after)) >= 4
