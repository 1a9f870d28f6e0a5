# Everything installs itself into .venv; `make test` is all a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Named here so that one known version is installed first; pyproject allows a range.
TORCH ?= torch==2.13.0

.PHONY: without-compiler demo test test-slow lint bench clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q -e '.[dev,eval,faster-whisper,piper,piper-espeak,ray,serve]' || $(MAKE) without-compiler
	@touch $(STAMP)

# Resemblyzer asks for webrtcvad, which has no wheel; webrtcvad-wheels is the same, built.
without-compiler:
	$(BIN)/python -m pip install -q -e '.[dev,faster-whisper,piper,piper-espeak,ray,serve]' webrtcvad-wheels
	$(BIN)/python -m pip install -q --no-deps 'resemblyzer>=0.1.4,<0.2'
	$(BIN)/python -m pip install -q 'jiwer>=3,<5' 'pocketsphinx>=5,<6' 'speechmos>=0.0.1.1,<0.1'

demo: $(STAMP)
	$(BIN)/python tools/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
