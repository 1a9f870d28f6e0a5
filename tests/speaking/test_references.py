"""The voice to imitate is the one that was named, with its words, or an error: never another one."""

from types import SimpleNamespace

import numpy as np
import pytest

from fish_speech.errors import UserError
from fish_speech.speaking.references import ReferenceChoice, find_references, read_references

SPEAKER = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(num_codebooks=4, codebook_sizes=(1024,) * 4)))


def write_codes(path, text=None, value=1):
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.full((4, 5), value, np.int32))
    if text is not None:
        path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8-sig")
    return path


def test_codes_are_read_with_the_words_beside_them(tmp_path):
    path = write_codes(tmp_path / "voice.npy", "Five frames.")
    files = find_references(ReferenceChoice((path,)), tmp_path)
    (reference,) = read_references(files, SPEAKER)
    assert reference.text == "Five frames." and reference.codes.shape == (4, 5)


def test_words_that_are_no_text_are_refused(tmp_path):
    path = write_codes(tmp_path / "voice.npy")
    path.with_suffix(".txt").write_bytes(b"F\xfcnf")
    with pytest.raises(UserError, match=r"cannot read .*voice\.txt"):
        find_references(ReferenceChoice((path,)), tmp_path)


def test_a_voice_is_found_by_its_name_and_nothing_else_is_taken(tmp_path):
    write_codes(tmp_path / "voices" / "anna.npy", "Anna says this.", 1)
    write_codes(tmp_path / "voices" / "bert.npy", "Bert says that.", 2)
    voices = tmp_path / "voices"
    files = find_references(ReferenceChoice(voice="bert", voices_folder=voices), tmp_path)
    (reference,) = read_references(files, SPEAKER)
    assert reference.text == "Bert says that." and (reference.codes == 2).all()
    for missing in ("carl", "../voices/anna", "anna.npy"):
        with pytest.raises(UserError):
            find_references(ReferenceChoice(voice=missing, voices_folder=voices), tmp_path)
    with pytest.raises(UserError, match="--voice and --prompt"):
        find_references(ReferenceChoice((voices / "anna.npy",), voice="bert", voices_folder=voices), tmp_path)


@pytest.mark.parametrize("kind", ["codes", "audio"])
def test_a_reference_that_is_not_there_is_an_error_before_anything_is_loaded(tmp_path, kind):
    gone = tmp_path / "gone"
    choice = (
        ReferenceChoice((gone,), ("Words.",))
        if kind == "codes"
        else ReferenceChoice(prompt_text=("Words.",), audio=gone)
    )
    with pytest.raises(UserError, match="there is no reference"):
        find_references(choice, tmp_path)


def test_words_without_a_reference_and_a_reference_without_words_are_refused(tmp_path):
    path = write_codes(tmp_path / "voice.npy")
    with pytest.raises(UserError, match="--prompt-text has no effect"):
        find_references(ReferenceChoice(prompt_text=("Words.",)), tmp_path)
    with pytest.raises(UserError, match="1 references and 0 texts"):
        find_references(ReferenceChoice((path,)), tmp_path)
    with pytest.raises(UserError, match="1 references and 2 texts"):
        find_references(ReferenceChoice((path,), ("One.", "Two.")), tmp_path)


@pytest.mark.parametrize("words", ["", " ", "..."])
def test_a_reference_whose_words_say_nothing_is_refused(tmp_path, words):
    path = write_codes(tmp_path / "voice.npy", words)
    for choice in (ReferenceChoice((path,), (words,)), ReferenceChoice((path,))):
        with pytest.raises(UserError, match="no words"):
            find_references(choice, tmp_path)


def test_a_list_of_references_is_read_in_order(tmp_path):
    one, two = write_codes(tmp_path / "one.npy", "One.", 1), write_codes(tmp_path / "two.npy", None, 2)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{two}|Two words.\n{one}\n", encoding="utf-8")
    files = find_references(ReferenceChoice(tokens_file=listed), tmp_path)
    assert [text for _, text in files.codes] == ["Two words.", "One."]
    assert [int(r.codes[0, 0]) for r in read_references(files, SPEAKER)] == [2, 1]


def test_the_digest_tells_other_codes_and_other_words(tmp_path):
    path = write_codes(tmp_path / "voice.npy", "Words.")
    first = find_references(ReferenceChoice((path,)), tmp_path).digest()
    assert first == find_references(ReferenceChoice((path,)), tmp_path).digest()
    assert first != find_references(ReferenceChoice((path,), ("Other words.",)), tmp_path).digest()
    write_codes(path, None, 3)
    assert first != find_references(ReferenceChoice((path,)), tmp_path).digest()
