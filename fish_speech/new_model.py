"""Stage: make the folder of an untrained model: config.json, tokenizer.tiktoken and special_tokens.json, no weights.

  python -m fish_speech.new_model --sentences corpus/lm --output checkpoints/NAME

The tokenizer is learned from the sentences; training starts from the folder with --config-name text2semantic_pretrain."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import configs
from .arguments import make_parser, non_negative_int, positive_int
from .errors import UserError
from .errors import run as run_main
from .files import remove_leftovers, write_text
from .log import setup
from .versions import CONFIG_FILE, FISH, S1, TOKENIZER_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from .models import DualARConfig


def read_sentences(path: Path) -> list[str]:
    """Return the cleaned lines of a text file, or the .lab files below a folder, in the order of their names."""
    from .datasets.sources import clean_transcript
    from .text.normalize import clean_text

    if path.is_dir():
        texts = [_read_text(lab) for lab in sorted(path.rglob("*.lab"))]
    elif path.is_file():
        texts = _read_text(path).splitlines()
    else:
        raise UserError(f"there is no {path}", "the tokenizer is learned from it", "give a text file or a folder")
    cleaned = [clean_text(clean_transcript(text)).strip() for text in texts]
    sentences = [text for text in cleaned if text]
    if not sentences:
        raise UserError(f"{path} holds no sentences", "a file has one a line, a folder .lab files", "check --sentences")
    return sentences


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the text in {path}", str(error), "save it as UTF-8, or remove it") from None


def words_of_prompts(family: str) -> tuple[str, ...]:
    """Texts that every clip is trained on with around its sentence."""
    from .text.content_sequence import SPEAKER
    from .text.conversation import SYSTEM_TEXT

    return {FISH: ("system\n", "user\n", "assistant\n", SYSTEM_TEXT), S1: (SPEAKER.format(0),)}[family]


def special_tokens(config: DualARConfig) -> tuple[str, ...]:
    """The family's special tokens; those of frames as many as the model needs. ValueError where it has not so many."""
    from .text.special_tokens import SEMANTIC, SPECIAL_TOKENS_1_5, SPECIAL_TOKENS_S1

    tokens = {FISH: SPECIAL_TOKENS_1_5, S1: SPECIAL_TOKENS_S1}[config.family]
    first = tokens.index(SEMANTIC.format(0))
    most = min(config.semantic_tokens, len(tokens) - first)
    if config.codebook_size > most:
        raise ValueError(f"codebook_size is {config.codebook_size}, but there are {most} semantic tokens")
    return tokens[: first + most]


def make_folder(output: Path, sentences: list[str], shape: dict[str, Any], merges: int) -> str:
    """Write the model folder and say what it holds. Raises UserError if `output` is a model already.

    The keys of `shape` tell the family, as those of config.json do. config.json is written last: a folder without it is
    not whole, and is made anew.
    """
    from .models import DualARConfig
    from .text import Tokenizer
    from .text.byte_pairs import count_words, learn_ranks
    from .text.tokenizer import ranks_text

    there = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if (output / name).exists()]
    if there:
        raise UserError(f"{output} is a model folder", f"it has {', '.join(there)}", "choose another --output")
    try:
        config = DualARConfig.from_mapping(shape)
        if unknown := DualARConfig.unknown_keys(shape):
            raise ValueError(f"no model of its family knows {', '.join(unknown)}")
        names = special_tokens(config)
    except (ValueError, TypeError) as error:
        raise UserError(
            "the model's shape does not make sense", str(error), "correct the config or the flag"
        ) from error
    words = count_words(sentences)
    for text in words_of_prompts(config.family):
        words.update({word: count * len(sentences) for word, count in count_words([text]).items()})
    ranks = learn_ranks(words, merges)
    config = replace(config, vocab_size=len(ranks) + len(names))
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    write_text(output / TOKENIZER_FILE, ranks_text(ranks))
    tokenizer = Tokenizer(output, names)
    tokenizer.save(output)
    write_text(output / CONFIG_FILE, config.to_json())
    tokens = sum(len(tokenizer.encode(text, allowed_special=False)) for text in sentences)
    size = sum(len(text.encode()) for text in sentences)
    return (
        f"{output}: {len(ranks) - 256} merges from {len(sentences)} sentences, vocabulary {tokenizer.vocab_size}, "
        f"{size / tokens:.2f} bytes a token; {config.n_layer}+{config.n_fast_layer} layers of {config.dim}, "
        f"{config.num_codebooks} codebooks"
    )


def main(argv: list[str] | None = None) -> int:
    """Parse and make the folder."""
    parser = make_parser("python -m fish_speech.new_model", __doc__ or "")
    parser.add_argument(
        "--sentences", type=Path, required=True, help="text file with a sentence a line, or a folder of .lab files"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--model", default="minnow", help="shape: a name in configs/model (default: minnow)")
    parser.add_argument("--merges", type=non_negative_int, default=200, help="byte-pair merges (default: 200)")
    parser.add_argument(
        "--codebooks", type=positive_int, help="codes per frame, as the codec has (default: the shape's)"
    )
    arguments = parser.parse_args(argv)
    setup()
    shape = configs.read_model(arguments.model)
    if arguments.codebooks is not None:
        shape["num_codebooks"] = arguments.codebooks
    said = make_folder(arguments.output, read_sentences(arguments.sentences), shape, arguments.merges)
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    run_main(main)
