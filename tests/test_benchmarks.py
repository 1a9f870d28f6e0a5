"""The benchmarks run at a tiny size and print every figure; how fast they are is not a test's business."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from .conftest import REPO


@pytest.mark.slow
def test_tiny_benchmarks_print_a_finite_figure_in_every_row(tmp_path):
    pytest.importorskip("psutil")
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--scale", "tiny", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    for part in (
        "train 1 x 256",
        "train 4 x 512",
        "merge",
        "codec: extraction",
        "codec: decoding",
        "generate",
        "prepare",
    ):
        assert any(row["what"].startswith(part) for row in rows), part
    for row in rows:
        assert row["what"] in done.stdout
        assert math.isfinite(row["value"]) and row["value"] > 0, row
        assert row["baseline"] is None or math.isfinite(row["baseline"]), row


def test_an_unknown_part_is_a_wrong_request():
    command = [sys.executable, "-m", "benchmarks", "--only", "train,merg"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 2
    assert "unknown: merg" in done.stderr
