# Everything installs itself into .venv; `make test` is all a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Named here so that one known version is installed first; pyproject allows a range.
TORCH ?= torch==2.13.0

.PHONY: without-compiler demo train-piper test test-slow lint bench clean

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

# BATCH_SIZE=80 NUM_GPUS=2 MAX_EPOCHS=1000 make train-piper: a Piper voice; without DATA_DIR of synthetic clips, to try it.
# PROJECT, DATA_DIR, CHECKPOINT, ESPEAK_VOICE, DEVICE likewise; ARGS='...' for other flags of finetune_tts.py.
train-piper: $(STAMP)
	$(BIN)/python finetune_tts.py --engine piper --full-pipeline \
		$(if $(BATCH_SIZE),--batch-size "$(BATCH_SIZE)") $(if $(NUM_GPUS),--num-gpus "$(NUM_GPUS)") \
		$(if $(MAX_EPOCHS),--max-epochs "$(MAX_EPOCHS)") $(if $(PROJECT),--project "$(PROJECT)") \
		$(if $(DATA_DIR),--data-dir "$(DATA_DIR)") $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") \
		$(if $(ESPEAK_VOICE),--espeak-voice "$(ESPEAK_VOICE)") $(if $(DEVICE),--device "$(DEVICE)") $(ARGS)

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
