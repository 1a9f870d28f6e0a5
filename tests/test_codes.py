"""Each codebook has a size of its own, and codes are held to it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.codes import largest_of_rows, row_too_large, sizes_of_rows

grids = st.lists(st.lists(st.integers(0, 40), min_size=3, max_size=3), min_size=1, max_size=6)


@given(grids, st.data())
def test_the_first_row_with_a_code_beyond_its_size_is_found(rows, data):
    sizes = data.draw(st.lists(st.integers(1, 40) | st.none(), min_size=len(rows), max_size=len(rows)))
    expected = [
        row
        for row, (codes, size) in enumerate(zip(rows, sizes, strict=True))
        if size is not None and any(code not in range(size) for code in codes)
    ]
    found = row_too_large(largest_of_rows(np.array(rows)), sizes)
    assert found == (expected[0] if expected else None)


def test_one_size_stands_for_all_rows_and_several_for_themselves():
    assert sizes_of_rows(3, 1024) == (1024, 1024, 1024)
    assert sizes_of_rows(3, [4096, 1024, 7]) == (4096, 1024, 7)
    assert largest_of_rows(np.array([[1, 9, 2], [65535, 0, 0]], np.uint16)) == (9, 65535)
