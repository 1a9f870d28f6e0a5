"""The plan of an epoch and the stream of batches: everything once, nothing cut, the same every time."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.datasets.packing import BatchStream, epoch_plan, too_long

lengths_lists = st.lists(st.integers(1, 50), min_size=1, max_size=60)
MAX = 50


def speakers_of(count):
    return [f"speaker {i * i % 3}" for i in range(count)]


@given(lengths_lists, st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_has_every_clip_once_in_samples_of_one_speaker_that_fit(sizes, seed, epoch):
    speakers, lengths = speakers_of(len(sizes)), dict(enumerate(sizes))
    plan = epoch_plan(speakers, lengths, MAX, seed, epoch)
    assert sorted(itertools.chain(*plan)) == list(lengths)
    for sample in plan:
        assert len({speakers[clip] for clip in sample}) == 1
        assert sum(lengths[clip] for clip in sample) <= MAX
    assert plan == epoch_plan(speakers, lengths, MAX, seed, epoch)


def test_packing_is_dense():
    lengths = {clip: 10 + clip * 7 % 13 for clip in range(3000)}
    plan = epoch_plan(["anna"] * 3000, lengths, 400, seed=1, epoch=0)
    assert len(plan) <= 1.02 * sum(lengths.values()) / 400 + 1


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = dict.fromkeys(range(40), 10)
    plans = [epoch_plan(["anna"] * 40, lengths, MAX, seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert all(one != two for one, two in itertools.combinations(plans, 2))
    # From a run of Python 3.10 to 3.13: a change of Python or platform must not change what a resumed run sees.
    assert epoch_plan(["a", "a", "b", "a"], dict.fromkeys(range(4), 20), MAX, 42, 0) == [(0, 1), (3,), (2,)]


def test_a_clip_that_fits_nowhere_is_reported_and_packed_alone_not_cut():
    lengths = {0: 10, 1: 51}
    assert too_long(lengths, MAX) == [1]
    assert (1,) in epoch_plan(["a"] * len(lengths), lengths, MAX, seed=1, epoch=0)


def stream(count=23, **options):
    settings = {"max_length": MAX, "batch_size": 2, "seed": 5} | options
    return BatchStream(speakers_of(count), {i: 11 + i % 9 for i in range(count)}, **settings)


def take(batches, count):
    return list(itertools.islice(batches, count))


@pytest.mark.parametrize("start", [0, 1, 4, 5, 17, 30])
def test_a_stream_resumed_at_a_batch_continues_the_one_that_never_stopped(start):
    assert take(stream(start=start), 20) == take(stream(), start + 20)[start:]


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3))
def test_the_ranks_together_see_what_one_process_sees_with_their_batch_sizes_sum(count, world_size, batch_size):
    ranks = [stream(count, rank=r, world_size=world_size, batch_size=batch_size) for r in range(world_size)]
    alone = stream(count, batch_size=batch_size * world_size)
    for number, whole in enumerate(take(alone, 7)):
        shares = [rank.items_at(number) for rank in ranks]
        assert sorted(item for share in shares for item in share) == sorted(whole)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 60))
def test_a_batch_can_be_asked_for_by_its_number(count, batch_size, number):
    batches = take(stream(count, batch_size=batch_size), number + 1)
    asked = stream(count, batch_size=batch_size)
    assert asked.items_at(number) == batches[number]
    epoch, place = asked.place(number)
    assert epoch == batches[number][0][0]
    assert place == sum(batch[0][0] == epoch for batch in batches) - 1
