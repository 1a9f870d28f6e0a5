"""What the contestants of a tournament get: texts, the clips that training held out, and the recordings of these.

Held-out clips are those of the run itself: the same data module with the settings that the checkpoint recorded chooses
them from the same shards. If the shards are others by now, nothing is known to be unseen, and fixed sentences serve.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..text import split_text
from ..text.normalize import clean_text

if TYPE_CHECKING:
    from ..datasets.datamodule import SemanticDataModule
    from ..models import DualAR, DualARConfig
    from ..text import Tokenizer

logger = logging.getLogger(__name__)

MOST_LOSSES = 64  # held-out clips whose loss is computed; more hardly move the mean
_LONGEST_TEXT = 2000  # characters; a longer one would take minutes to speak

# Plain English with numbers, names, questions and sounds of every kind; in no known training set.
SENTENCES = (
    "The kettle was boiling before anyone came down to the kitchen.",
    "Could you tell me when the last train to the coast leaves?",
    "Seven small boats were waiting at the edge of the harbour.",
    "Please keep the blue folder and send the other two back.",
    "She thought that the weather might change on Thursday.",
    "His brother joined the choir, although he could hardly sing.",
    "We measured the garden twice and found a large mistake.",
    "Why did the judge choose such a strange question?",
    "The old bridge has been closed since the storm in March.",
    "Fresh bread, a little cheese and five ripe plums will do.",
    "Nobody noticed that the music had stopped playing.",
    "Thank you for calling, and have a pleasant evening.",
    "Push the heavy door gently, then turn the key to the left.",
    "There were twenty people in the queue outside the theatre.",
    "A young fox was watching us from behind the fence.",
    "My uncle usually works at the hospital until half past six.",
)


@dataclass
class Material:
    """What is spoken and compared with."""

    texts: list[str]
    held_out: int = 0  # so many of the texts are of held-out clips; they come first
    recordings: dict[int, Path] = field(default_factory=dict)  # number of the text -> its real recording
    data: SemanticDataModule | None = None  # whose held-out clips are known to be unseen
    notes: list[str] = field(default_factory=list)  # what to tell


def held_out_data(
    shards: Sequence[Path], settings: Mapping[str, Any], config: DualARConfig, tokenizer: Tokenizer, notes: list[str]
) -> SemanticDataModule | None:
    """The data of a run as its training saw it; None, with a note, if nothing is known to have been held out."""
    from ..datasets.datamodule import SemanticDataModule
    from ..training.starting import shards_hash

    present = [path for path in shards if path.exists()]
    if not present:
        notes.append(f"the packed data of this run is gone ({', '.join(map(str, shards))})")
        return None
    try:
        digest = shards_hash(present)
    except UserError as error:
        notes.append(f"the packed data of this run cannot be used: {error.why}")
        return None
    if settings.get("data") != digest:
        notes.append("the data was packed anew since this training, so which clips it held out is not known")
        return None
    seed, share, length = (settings.get(name) for name in ("seed", "held-out share", "max_length"))
    if not isinstance(seed, int) or not isinstance(share, int | float) or not isinstance(length, int):
        notes.append("the checkpoint does not say which clips its run held out")
        return None
    data = SemanticDataModule(
        present,
        tokenizer,
        max_length=length,
        batch_size=1,
        seed=seed,
        val_share=share,
        num_codebooks=config.num_codebooks,
        codebook_size=config.codebook_sizes,
        example_format=str(settings.get("example format", "default")),
    )
    data.setup()
    if not data.has_validation:
        notes.append("this run held no clips out")
        return None
    return data


def choose_material(
    data: SemanticDataModule | None,
    count: int,
    language: str,
    given: Sequence[str] = (),
    folder: Path | None = None,
    avoid: str | None = None,
) -> Material:
    """Take `count` texts: those `given`, else of held-out clips, filled up with fixed sentences if these are English.

    `avoid` is the text of the reference in the prompt: repeating it would be no test. `folder` is the data set, in
    which the recordings of held-out texts are looked for. Raises UserError if there is nothing to say.
    """
    if given:
        return Material(list(given)[:count], data=data)
    texts: list[str] = []
    speakers: list[str] = []
    if data is not None and data.dataset is not None:
        clips, seen = data.dataset.clips, {comparable(avoid or "")}
        for clip in data.held_out:
            text = clips.text_of(clip)
            if comparable(text) not in seen and len(text) <= _LONGEST_TEXT and split_text(text, 200):
                seen.add(comparable(text))
                texts.append(text)
                speakers.append(clips.speakers[clip])
    material = Material(texts[:count], data=data)
    material.held_out = len(material.texts)
    if folder is not None and material.texts:
        material.recordings = recordings_of(folder, material.texts, speakers)
    lacking = count - material.held_out
    if lacking and language == "en":
        material.texts += SENTENCES[:lacking]
        fixed = len(material.texts) - material.held_out
        material.notes.append(f"{material.held_out} held-out texts and {fixed} fixed sentences are spoken")
    if not material.texts:
        raise UserError(
            f"there is nothing to say in the language {language!r}",
            "no text was held out in training, and the fixed sentences are English",
            "give sentences with python -m fish_speech.tournament --texts FILE, one per line; "
            "finetune_tts.py goes without a tournament with --tournament-texts 0",
        )
    return material


def recordings_of(folder: Path, texts: Sequence[str], speakers: Sequence[str]) -> dict[int, Path]:
    """Find the recordings of `texts` in a data set by their transcripts, by number; of equal ones that of the speaker."""
    from ..audio import AudioError, find_audio
    from ..prepare.transcripts import Transcripts

    wanted = {comparable(text): number for number, text in enumerate(texts)}
    transcripts, found = Transcripts(), dict[int, Path]()
    try:
        paths = find_audio(folder.resolve())
    except AudioError as error:
        logger.warning("recordings of the held-out texts are not found: %s", error)
        return {}
    for path in paths:
        number = wanted.get(comparable(transcripts.read(path).text or ""))
        if number is not None and (number not in found or path.parent.name == speakers[number]):
            found[number] = path
    return dict(sorted(found.items()))


def comparable(text: str) -> str:
    """A transcript as packing cleans it, single-spaced."""
    return " ".join(clean_text(text).split())


def held_out_losses(model: DualAR, data: SemanticDataModule) -> list[float | None]:
    """The loss of each held-out clip alone, of up to MOST_LOSSES spread evenly, always the same ones; None: not finite.

    A clip that is too long for the model's memory counts in no system.
    """
    import torch

    from ..datasets.collate import Collate
    from ..training.losses import dual_ar_loss

    assert data.dataset is not None
    collate = Collate(model.tokenizer.end_of_text_id, data.max_length)
    chosen = np.linspace(0, len(data.held_out) - 1, min(MOST_LOSSES, len(data.held_out))).round().astype(int)
    losses: list[float | None] = []
    with torch.no_grad():  # not inference_mode: the model speaks afterwards with tensors made here
        for clip in (data.held_out[index] for index in chosen):
            example = data.dataset[0, (clip,)]
            if example[0].shape[1] > model.config.max_seq_len:
                continue
            batch = {name: tensor.to(model.device) for name, tensor in collate([example]).items()}
            loss = dual_ar_loss(model, batch["inputs"], batch["labels"], batch["attention_masks"]).loss.item()
            losses.append(loss if math.isfinite(loss) else None)
    return losses
