"""Monotonic alignment finds the best path there is, with the golden rule for ties, whatever surrounds it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from piper_train.models.alignment import log_likelihood, maximum_path

numba = pytest.importorskip("numba", reason="the extra 'piper' is not installed")
REPO = Path(__file__).parents[2]


def paths(frames: int, symbols: int):
    """Every monotonic path: for each way to cut frames into symbols, the symbol of each frame."""
    for cuts in itertools.combinations(range(1, frames), symbols - 1):
        lengths = np.diff([0, *cuts, frames])
        yield np.repeat(np.arange(symbols), lengths)


def by_rows(values: np.ndarray) -> np.ndarray:
    """The golden rule in plain numpy for one clip (frames, symbols), all sums kept; float32 as the kernel."""
    frames, symbols = values.shape
    sums = np.full((frames, symbols + 1), -np.inf, dtype=np.float32)  # column 0 is before the first symbol
    sums[0, 1] = values[0, 0]
    for y in range(1, frames):
        sums[y, 1:] = values[y] + np.maximum(sums[y - 1, 1:], sums[y - 1, :-1])
    path, x = np.zeros(values.shape, dtype=np.float32), symbols - 1
    for y in reversed(range(frames)):
        path[y, x] = 1
        if x > 0 and (x == y or sums[y - 1, x + 1] < sums[y - 1, x]):
            x -= 1
    return path


def align(values: np.ndarray, frames: list[int], symbols: list[int]) -> np.ndarray:
    return maximum_path(torch.from_numpy(values), torch.tensor(frames), torch.tensor(symbols)).numpy()


@pytest.mark.parametrize("name", ["random", "ties", "constant", "single", "big"])
def test_paths_are_golden_also_where_sums_tie(name, piper_golden):
    golden = piper_golden("mel_mas.npz")
    values, frames, symbols = (torch.from_numpy(golden[f"mas.{name}.{key}"]) for key in ("neg_cent", "t_y", "t_x"))
    path = maximum_path(values, frames, symbols)
    assert path.dtype == values.dtype
    assert np.array_equal(path.numpy(), golden[f"mas.{name}.path"])


def test_a_clip_with_fewer_frames_than_symbols_is_laid_out_as_golden(piper_golden):
    # The medium case holds such a clip, with 54 frames for 63 symbols; here the walk on numbers that can be followed.
    values = np.zeros((1, 3, 5), dtype=np.float32)
    values[0, 0] = [9, 0, 0, 1, 0]  # frame 1 came from symbol 3, and in frame 0 it stays there: 0 < 1 is the other way
    values[0, 1] = [9, 9, 9, 2, 1]  # frame 2 is the last symbol's, and 1 < 2, so frame 1 is symbol 3's
    path = align(values, [3], [5])
    assert path[0].argmax(1).tolist() == [3, 3, 4]
    assert path[0].sum(1).tolist() == [1, 1, 1]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_monotonic_path_has_a_larger_sum(data):
    symbols = data.draw(st.integers(1, 4))
    frames = data.draw(st.integers(symbols, 8))
    # Whole numbers add up exactly, so that equal sums are equal; few of them, so that there are many ties.
    cell = st.integers(-3, 3)
    values = np.array(
        data.draw(st.lists(cell, min_size=frames * symbols, max_size=frames * symbols)), dtype=np.float32
    ).reshape(1, frames, symbols)
    path = align(values, [frames], [symbols])[0]
    best = max(values[0, np.arange(frames), way].sum() for way in paths(frames, symbols))
    way = path.argmax(1)
    assert path.sum(1).tolist() == [1] * frames  # each frame belongs to one symbol
    assert way[0] == 0 and way[-1] == symbols - 1 and set(np.diff(way).tolist()) <= {0, 1}  # in order, none left out
    assert (values[0] * path).sum() == best
    assert np.array_equal(path, by_rows(values[0]))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(0, 60), st.booleans())
def test_a_padded_batch_is_aligned_as_each_clip_alone(seed, symbols, more, coarse):
    rng = np.random.default_rng(seed)
    shapes = [(symbols + more, symbols), (symbols + more // 2, max(1, symbols // 2)), (1, 1)]
    values = rng.normal(-200, 40, (3, symbols + more + 2, symbols + 3)).astype(np.float32)
    values = np.round(values / 40) * 40 if coarse else values
    path = align(values, [frames for frames, _ in shapes], [count for _, count in shapes])
    for row, (frames, count) in enumerate(shapes):
        assert np.array_equal(path[row, :frames, :count], by_rows(values[row, :frames, :count]))
        assert path[row].sum() == frames  # nothing in the padding


def test_sums_below_what_single_precision_could_mark_as_unreachable_are_aligned():
    values = np.full((1, 600, 3), -4e6, dtype=np.float32)  # sums go to -2.4e9
    values[0, :, 1] += 1e6
    path = align(values, [600], [3])[0]
    assert path.sum(0).tolist() == [1, 598, 1]


def test_what_is_not_a_number_ends_in_a_path_all_the_same():
    path = align(np.full((1, 9, 4), np.nan, dtype=np.float32), [9], [4])[0]
    assert path.sum(1).tolist() == [1] * 9 and (path.sum(0) >= 1).all()


@pytest.mark.parametrize(
    ("frames", "symbols"), [([8], [3]), ([7], [6]), ([0], [1]), ([7], [0]), ([7, 7], [3, 3]), ([-1], [3])]
)
def test_lengths_that_do_not_fit_are_refused(frames, symbols):
    with pytest.raises(ValueError, match="lengths"):
        align(np.zeros((1, 7, 5), dtype=np.float32), frames, symbols)


def test_threads_align_side_by_side():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(3, 90, 30)).astype(np.float32) for _ in range(16)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda values: align(values, [90, 70, 31], [30, 30, 30]), batches))
    for values, path in zip(batches, found):
        assert np.array_equal(path[1, :70], by_rows(values[1, :70]))


def test_the_log_density_of_frames_under_symbols_is_that_of_the_normal_distribution():
    torch.manual_seed(0)
    z, m, logs = torch.randn(2, 5, 7).double(), torch.randn(2, 5, 3).double(), torch.randn(2, 5, 3).double()
    normal = torch.distributions.Normal(m[:, :, None], logs.exp()[:, :, None])
    expected = normal.log_prob(z[:, :, :, None]).sum(1)  # (batch, frames, symbols)
    assert_close(log_likelihood(z, m, logs), expected)


def test_numba_is_not_imported_before_something_is_aligned():
    code = "import sys, piper_train.models.synthesizer; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode == 0


def test_the_search_runs_where_its_machine_code_cannot_be_kept(monkeypatch):
    from piper_train.models import alignment_search

    compile_it = numba.njit

    def nowhere_to_write(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return compile_it(**options)

    monkeypatch.setattr(numba, "njit", nowhere_to_write)
    doubled = alignment_search._machine_code(lambda x: 2 * x)
    assert doubled(21) == 42
