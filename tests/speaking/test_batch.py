"""A batch file: every line is checked before anything happens, and whatever is in it."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.errors import UserError
from fish_speech.speaking import batch as batch_module
from fish_speech.speaking.batch import read_batch
from fish_speech.speaking.batch_line import MAX_SEED, BatchLine, LineSettings, parse_line


def jsonl(*lines: object) -> io.BytesIO:
    return io.BytesIO(
        b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    )


def wrong(*lines: object, **options) -> UserError:
    with pytest.raises(UserError) as error:
        read_batch(jsonl(*lines), **options)
    return error.value


def test_a_line_needs_a_text_alone_and_is_called_by_its_number():
    with read_batch(jsonl({"text": "Hi."}, b"\n", {"text": "Ho.", "id": "two"}, {"text": "Hu.", "id": 7})) as batch:
        assert len(batch) == 3 and batch.text_bytes == 9
        assert list(batch) == [
            BatchLine(1, "Hi.", "0001.wav", LineSettings()),
            BatchLine(3, "Ho.", "two.wav", LineSettings()),
            BatchLine(4, "Hu.", "7.wav", LineSettings()),
        ]


def test_a_lines_settings_go_before_the_command_lines():
    defaults = LineSettings(seed=7, voice="anna", speed=1.5, temperature=0.2)
    line = {"text": "Hi.", "output": "a/b.flac", "seed": 9, "voice": "ben", "speed": 2, "pitch": -3, "volume": 1.5}
    line |= {"temperature": 0, "top_p": 0.5, "repetition_penalty": 1}
    with read_batch(jsonl(line, {"text": "Ho.", "seed": None}), defaults) as batch:
        first, second = batch
    assert first.settings == LineSettings(9, "ben", 2.0, -3.0, 1.5, 0.0, 0.5, 1.0) and first.output == "a/b.flac"
    assert second.settings == defaults


def test_the_same_lines_come_as_often_as_they_are_asked_for_even_at_once():
    with read_batch(jsonl(*({"text": f"Line {n}."} for n in range(5)))) as batch:
        assert [one == other for one, other in zip(batch, batch)] == [True] * 5


def test_a_file_is_taken_as_it_was_when_it_was_checked(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + '{"text": "Grüße."}\r\n{"text": "Two."}'.encode())
    with read_batch(path) as batch:
        path.write_text('{"text": "Changed.", "output": "/etc/passwd.wav"}', encoding="utf-8")
        assert [line.text for line in batch] == ["Grüße.", "Two."]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"text\n", "not JSON"),
        (b"\xff\n", "not UTF-8"),
        (b'["text"]\n', "not an object"),
        (b'{"text": "Hi."} {"text": "Ho."}\n', "not JSON"),
        (b'{"text": "Hi.", "text": "Ho."}\n', "a key is given twice"),
        (b"[" * 100_000 + b"\n", "too deeply nested"),
        (b'{"text": "Hi.", "seed": 1' + b"0" * 5000 + b"}\n", "line 1: "),
        ({}, "text is missing"),
        ({"text": 3}, "text is no string"),
        ({"text": " ... "}, "nothing to say"),
        ({"text": "half \ud800"}, "not UTF-8"),
        ({"text": "Hi.", "sede": 3}, "'sede' is not one of text, output"),
        ({"text": "Hi.", "output": "../a.wav"}, "not inside"),
        ({"text": "Hi.", "output": "a.mp3"}, "must end in"),
        ({"text": "Hi.", "output": 3}, "output is no string"),
        ({"text": "Hi.", "output": "a.wav", "id": "a"}, "output and id"),
        ({"text": "Hi.", "id": "a/b"}, "without /"),
        ({"text": "Hi.", "id": True}, "id is no string"),
        ({"text": "Hi.", "id": ""}, "dot"),
        ({"text": "Hi.", "seed": -1}, "seed is not"),
        ({"text": "Hi.", "seed": MAX_SEED + 1}, "seed is not"),
        ({"text": "Hi.", "seed": 1.0}, "seed is not"),
        ({"text": "Hi.", "seed": True}, "seed is not"),
        ({"text": "Hi.", "speed": "2"}, "speed is not a number"),
        ({"text": "Hi.", "speed": 0}, "speed"),
        ({"text": "Hi.", "speed": 10**400}, "speed is not a number"),
        (b'{"text": "Hi.", "pitch": NaN}\n', "pitch is not a number"),
        (b'{"text": "Hi.", "volume": -Infinity}\n', "volume is not a number"),
        ({"text": "Hi.", "pitch": 1000}, "pitch"),
        ({"text": "Hi.", "temperature": 3}, "temperature"),
        ({"text": "Hi.", "top_p": 0}, "top_p"),
        ({"text": "Hi.", "repetition_penalty": 2}, "repetition_penalty"),
        ({"text": "Hi.", "voice": ""}, "voice is no name"),
        ({"text": "Hi.", "voice": ["anna"]}, "voice is no name"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_with_its_number(line, told):
    error = wrong(line, {"text": "Fine."})
    assert error.what == "1 line of the batch on stdin is wrong"
    assert error.why.startswith("line 1: ") and told in error.why and "\n" not in error.why and "\x1b" not in error.why


def test_all_wrong_lines_are_counted_and_the_first_ten_told():
    error = wrong({"text": "Fine."}, *[{"text": ""}] * 25)
    assert error.what.startswith("25 lines of")
    told = error.why.split("\n       ")
    assert [line.split(":")[0] for line in told[:10]] == [f"line {n}" for n in range(2, 12)]
    assert told[10:] == ["and 15 more"]


def test_two_lines_for_one_file_are_wrong_in_any_spelling():
    for first, second in (
        ({"output": "A.wav"}, {"output": "a.WAV"}),
        ({"output": "0002.wav"}, {}),
        ({"id": 1}, {"id": "1"}),
    ):
        error = wrong({"text": "Hi.", **first}, {"text": "Ho.", **second})
        assert "line 2: " in error.why and "in the way of the output of line 1" in error.why


def test_a_check_of_the_callers_counts_like_the_others():
    def check(line: BatchLine) -> None:
        if line.settings.voice == "nobody":
            raise UserError("there is no voice nobody", "voices has anna", "choose one")

    error = wrong({"text": "Hi.", "voice": "nobody"}, {"text": "Hi.", "voice": "anna"}, {"text": ""}, check=check)
    assert error.why.split("\n")[0] == "line 1: there is no voice nobody: voices has anna"
    assert error.what.startswith("2 lines")


@pytest.mark.parametrize("data", [b"", b"\n \n\r\n"])
def test_a_batch_without_lines_is_an_error(data):
    assert "has no lines" in wrong(data).what


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_a_batch_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(UserError, match="cannot read"):
        read_batch(tmp_path / name)


class Endless(io.RawIOBase):
    """Gives one line without end, or lines without end, and counts what was read."""

    def __init__(self, data: bytes):
        self.data, self.given = data, 0

    def readline(self, size: int = -1) -> bytes:  # type: ignore[override]
        line = self.data if self.data.endswith(b"\n") else self.data * (size // len(self.data) + 1)
        self.given += len(line[:size])
        return line[:size]


def test_a_line_without_end_and_lines_without_end_are_refused_early(monkeypatch):
    endless = Endless(b"a")
    with pytest.raises(UserError, match="line 1: it is longer than 1 MB"):
        read_batch(endless)
    assert endless.given <= batch_module.MAX_LINE_BYTES + 1
    monkeypatch.setattr(batch_module, "MAX_LINES", 1000)
    with pytest.raises(UserError, match="line 1001: a batch ends before it"):
        read_batch(Endless(b"\n"))
    monkeypatch.setattr(batch_module, "MAX_BATCH_BYTES", 20_000)
    with pytest.raises(UserError, match=r"line \d+: a batch ends before it"):
        read_batch(Endless(b" " * 999 + b"\n"))


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,textoupid0.-ü\\ ', max_size=60).map(str.encode))
def test_whatever_the_bytes_the_answer_is_a_line_or_a_reason(data):
    try:
        line = parse_line(data, 1, LineSettings())
    except ValueError:
        return
    assert line.text and line.output


@given(text=st.text(min_size=1), seed=st.integers(0, MAX_SEED), speed=st.floats(0.5, 2), pitch=st.floats(-12, 12))
def test_what_json_can_say_arrives_unchanged(text, seed, speed, pitch):
    text = f"a{text}".encode("utf-8", "replace").decode()
    for ascii_only in (True, False):
        entry = {"text": text, "seed": seed, "speed": speed, "pitch": pitch}
        line = parse_line(json.dumps(entry, ensure_ascii=ascii_only).encode(), 1, LineSettings())
        assert line.text == text and line.settings == LineSettings(seed=seed, speed=speed, pitch=pitch)
