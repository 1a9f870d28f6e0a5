"""The text to say: from the command line, a file or stdin, as UTF-8 of bounded size."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from ..errors import UserError

MAX_TEXT_BYTES = 1 << 20
_EXAMPLE = 'python cli_tts.py "Hello there."'


def read_text(argument: str | None, text_file: Path | None, stdin: TextIO | None) -> str:
    """Return what to say: `argument`, the words of `text_file`, or, for neither or `-`, what comes over `stdin`.

    `stdin` is sys.stdin: its bytes are read as UTF-8 whatever the terminal's encoding is. Raises UserError for two
    texts, none, one that is longer than MAX_TEXT_BYTES or not UTF-8, and one without anything to say.
    """
    if text_file is not None and argument is not None:
        raise UserError("two texts are given", "one as argument and one as --text-file", "give one of them")
    if text_file is not None:
        text, where = _read_file(text_file), str(text_file)
    elif argument is not None and argument != "-":
        text, where = argument, "the text"
    else:
        text, where = _read_stdin(stdin), "the text on stdin"
    check_text(text, where)
    return text


def check_text(text: str, where: str = "the text") -> None:
    """Raise UserError if `text`, called `where` in the message, cannot be spoken: too long, empty, not Unicode."""
    from ..text import clean_text

    try:
        size = len(text.encode("utf-8"))
    except (
        UnicodeEncodeError
    ) as error:  # half a character: bytes of an argument that were no UTF-8, or "\ud800" in JSON
        raise UserError(f"{where} is not UTF-8", str(error), "save it as UTF-8") from None
    if size > MAX_TEXT_BYTES:
        raise UserError(f"{where} is too long", f"it has {size:,} bytes, texts may have 1 MB", "split it")
    if not any(map(str.isalnum, clean_text(text))):
        raise UserError(f"there is nothing to say in {where}", "it has no letters or digits", _EXAMPLE)


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)  # no more, also of a pipe or a device, which has no size to ask for
    except OSError as error:
        raise UserError(f"cannot read the text file {path}", error.strerror or str(error), "check the path") from None
    return _decoded(data, str(path))


def _read_stdin(stdin: TextIO | None) -> str:
    if stdin is None or stdin.isatty():
        raise UserError("no text is given", "there is nothing to say", _EXAMPLE)
    return _decoded(stdin.buffer.read(MAX_TEXT_BYTES + 1), "the text on stdin")


def _decoded(data: bytes, where: str) -> str:
    if len(data) > MAX_TEXT_BYTES:
        raise UserError(f"{where} is too long", "texts may have 1 MB", "split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8", str(error), "save it as UTF-8") from None
