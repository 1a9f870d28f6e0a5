"""The text to say, wherever it comes from."""

from __future__ import annotations

import io
import os
import sys
import threading

import pytest

from fish_speech.errors import UserError
from fish_speech.speaking.texts import MAX_TEXT_BYTES, check_text, read_text


def stdin_of(data: bytes, terminal: bool = False) -> io.TextIOWrapper:
    """What sys.stdin is, with an encoding that must not matter."""
    stream = io.TextIOWrapper(io.BytesIO(data), encoding="ascii")
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    return stream


def test_the_argument_is_the_text_and_stdin_is_left_alone():
    stdin = stdin_of(b"not this")
    assert read_text("Grüße.", None, stdin) == "Grüße."
    assert stdin.buffer.read() == b"not this"


@pytest.mark.parametrize("argument", [None, "-"])
def test_stdin_is_read_as_utf8_whatever_the_terminals_encoding(argument):
    assert read_text(argument, None, stdin_of("Grüße, 你好.".encode())) == "Grüße, 你好."


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_is_read_without_its_byte_order_mark(tmp_path, mark):
    (tmp_path / "text.txt").write_bytes(mark + "Grüße.\n".encode())
    assert read_text(None, tmp_path / "text.txt", None) == "Grüße.\n"


@pytest.mark.parametrize(
    ("argument", "content", "stdin", "told"),
    [
        ("Hi.", b"Hi.", None, "two texts"),
        ("-", b"Hi.", None, "two texts"),
        (None, None, None, "no text is given"),
        (None, None, stdin_of(b"Hi.", terminal=True), "no text is given"),
        (None, None, stdin_of(b""), "nothing to say in the text on stdin"),
        ("", None, stdin_of(b"Hi."), "nothing to say"),
        (" .!? \n", None, None, "nothing to say"),
        (None, b"\xff\xfeH\x00", None, "is not UTF-8"),
        (None, None, stdin_of(b"H\xfc"), "the text on stdin is not UTF-8"),
        ("half \udcfc", None, None, "is not UTF-8"),
        (None, b"a" * (MAX_TEXT_BYTES + 1), None, "is too long"),
        (None, None, stdin_of(b"a" * (MAX_TEXT_BYTES + 1)), "is too long"),
    ],
)
def test_what_cannot_be_spoken_is_refused(tmp_path, argument, content, stdin, told):
    file = tmp_path / "text.txt" if content is not None else None
    if file is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_text(argument, file, stdin)


def test_a_text_of_the_largest_size_is_taken_and_counted_in_bytes():
    check_text("a" * MAX_TEXT_BYTES)
    with pytest.raises(UserError, match="too long"):
        check_text("ü" * (MAX_TEXT_BYTES // 2 + 1))


@pytest.mark.parametrize("name", ["absent.txt", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(UserError, match="cannot read the text file"):
        read_text(None, tmp_path / name, None)


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes are files on POSIX alone")
def test_a_pipe_is_read_and_one_without_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    def write(data: bytes) -> None:
        try:
            with (tmp_path / "pipe").open("wb") as pipe:
                pipe.write(data)
        except BrokenPipeError:
            pass

    for data, expected in ((b"Hi.", "Hi."), (b"a" * (2 * MAX_TEXT_BYTES), None)):
        writer = threading.Thread(target=write, args=(data,))
        writer.start()
        if expected is None:
            with pytest.raises(UserError, match="too long"):
                read_text(None, tmp_path / "pipe", None)
        else:
            assert read_text(None, tmp_path / "pipe", None) == expected
        writer.join()
