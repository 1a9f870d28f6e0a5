"""minnow speaks: streamed or not, remembered or not, heard or not, a request and its seed give the same sound."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from fish_speech.errors import UserError
from fish_speech.synthesis.cache import TokenCache
from fish_speech.synthesis.effects import Effects
from fish_speech.synthesis.length_limit import longest_frames
from fish_speech.synthesis.loading import load_speaker
from fish_speech.synthesis.sampling import SamplingConfig
from fish_speech.synthesis.speak import SpeechRequest, Stopped, segment_seed
from fish_speech.synthesis.verify import Verdict, Verifier
from fish_speech.synthesis.voices import Reference

from ..conftest import REPO

MINNOW = REPO / "checkpoints" / "minnow"
TWO = SpeechRequest("Goodbye.\n\nThank you for calling.", seed=7)


@pytest.fixture(scope="module")
def loaded():
    return load_speaker(MINNOW, MINNOW / "codec.pth")


@pytest.fixture()
def speaker(loaded):
    loaded._cache = None
    return loaded


def sound(speaker, request, **options):
    return np.concatenate(list(speaker.stream(request, **options)))


def columns(speaker, request):
    return [codes.numpy() for codes in speaker.codes(request)]


def test_the_same_request_gives_the_same_sound_and_another_seed_another(speaker):
    first, again, other = (sound(speaker, request) for request in (TWO, TWO, replace(TWO, seed=8)))
    assert np.array_equal(first, again)
    assert len(first) != len(other) or not np.array_equal(first, other)
    assert first.dtype == np.float32 and np.abs(first).max() <= 1 and np.abs(first).max() > 0.01


def test_each_segment_has_random_numbers_of_its_own():
    seeds = {segment_seed(7, index, attempt) for index in range(20) for attempt in range(5)}
    assert len(seeds) == 100 and all(0 <= seed < 1 << 63 for seed in seeds)
    assert segment_seed(7, 0, 0) == 7


def test_a_first_segment_is_what_it_is_alone(speaker):
    both = columns(speaker, TWO)
    alone = columns(speaker, replace(TWO, text="Goodbye."))
    assert len(both) == 2 and np.array_equal(both[0], alone[0])


def test_what_is_remembered_is_what_was_generated(speaker, tmp_path):
    said, plain = [], sound(speaker, TWO)
    speaker.remember(TokenCache(tmp_path), "these weights")
    for expected in (False, True):
        said.clear()
        assert np.array_equal(sound(speaker, TWO, tell=said.append), plain)
        assert [segment.remembered for segment in said] == [expected, expected]
    faster = replace(TWO, effects=Effects(speed=1.25))  # an effect changes no tokens
    said.clear()
    assert len(sound(speaker, faster, tell=said.append)) == pytest.approx(len(plain) / 1.25, abs=2)
    assert all(segment.remembered for segment in said)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"sampling": SamplingConfig(temperature=0.8)},
        {"max_new_tokens": 9},
        {"references": (Reference("One.", np.ones((6, 5), np.int64)),)},
        {"marker": "(angry) "},
    ],
    ids=lambda change: next(iter(change)),
)
def test_nothing_is_remembered_for_another_request(speaker, tmp_path, change):
    request = replace(TWO, text="Goodbye.")
    speaker.remember(TokenCache(tmp_path), "these weights")
    sound(speaker, request)
    said = []
    sound(speaker, replace(request, **change), tell=said.append)
    assert not said[0].remembered


def test_other_weights_remember_nothing(speaker, tmp_path):
    request, said = replace(TWO, text="Goodbye."), []
    for identity in ("these weights", "other weights"):
        speaker.remember(TokenCache(tmp_path), identity)
        sound(speaker, request, tell=said.append)
    assert not any(segment.remembered for segment in said)


def test_a_stream_that_is_closed_generates_no_more_and_keeps_no_half(speaker, tmp_path):
    speaker.remember(TokenCache(tmp_path), "these weights")
    with closing(speaker.stream(TWO)) as pieces:
        assert len(next(pieces))
    assert TokenCache(tmp_path).info().entries == 0


def test_a_stream_that_is_stopped_from_outside_says_so(speaker, tmp_path):
    speaker.remember(TokenCache(tmp_path), "these weights")
    asked = iter(range(1000))
    with pytest.raises(Stopped):
        list(speaker.stream(TWO, stop=lambda: next(asked) == 5))
    assert next(asked) == 6 and TokenCache(tmp_path).info().entries == 0


def test_the_first_sound_comes_before_the_last_frame(speaker):
    asked = []
    pieces = speaker.stream(replace(TWO, text="Thank you for calling. Goodbye."), stop=lambda: asked.append(1))
    with closing(pieces):
        next(pieces)
        at_first = len(asked)
        for _ in pieces:
            pass
    assert at_first < len(asked)


class Judge(Verifier):
    """Is content with the attempt of this number, from 1, of each text."""

    def __init__(self, content_with, attempts):
        super().__init__(None, attempts)
        self.content_with, self.texts = content_with, []

    def judge(self, attempt, text):
        self.texts.append(text)
        right = self.texts.count(text) == self.content_with
        return Verdict(() if right else ("not yet",), 0.0 if right else 9.0 - self.texts.count(text))


def test_a_segment_is_spoken_with_other_seeds_until_the_verifier_is_content(speaker):
    request, said = replace(TWO, text="Goodbye."), []
    kept = sound(speaker, request, verifier=Judge(3, attempts=4), tell=said.append)
    assert said[0].tried == 3 and said[0].verdict.passed
    assert np.array_equal(kept, sound(speaker, replace(request, seed=segment_seed(request.seed, 0, 2))))


def test_the_best_is_kept_where_the_verifier_is_never_content(speaker):
    request, said = replace(TWO, text="Goodbye."), []
    kept = sound(speaker, request, verifier=Judge(9, attempts=3), tell=said.append)  # the last has the fewest errors
    assert said[0].tried == 3 and not said[0].verdict.passed
    assert np.array_equal(kept, sound(speaker, replace(request, seed=segment_seed(request.seed, 0, 2))))


def test_the_next_segment_goes_on_from_the_attempt_that_was_kept(speaker, tmp_path):
    speaker.remember(TokenCache(tmp_path), "these weights")
    said = []
    sound(speaker, TWO, verifier=Judge(2, attempts=3), tell=said.append)
    assert [(segment.index, segment.tried) for segment in said] == [(0, 2), (1, 2)]
    entries = TokenCache(tmp_path).info().entries
    sound(speaker, TWO, verifier=Judge(1, attempts=3), tell=said.append)
    assert said[2].remembered and not said[3].remembered  # the second goes on from another first one
    assert TokenCache(tmp_path).info().entries == entries + 1


def test_a_segment_is_no_longer_than_its_text_allows(speaker):
    said = []
    for seed in range(3):
        sound(speaker, SpeechRequest("Goodbye.", sampling=SamplingConfig(1.9, 1.0, 1.0), seed=seed), tell=said.append)
    most = longest_frames("Goodbye.", speaker.codec.frame_rate)
    assert all(segment.frames <= most for segment in said)


def test_a_segment_that_is_cut_closes_its_turn_before_the_next(speaker):
    end = speaker.model.tokenizer.im_end_id
    segments = speaker._prompts(replace(TWO, max_new_tokens=3))
    first = next(segments)
    first.columns = [torch.ones(7, dtype=torch.int64)] * 3  # three frames and no end
    second = next(segments)
    behind = second.prompt[:, first.prompt.shape[1] :]
    assert behind[0, :4].tolist() == [1, 1, 1, end] and not behind[1:, 3].any()


def test_nothing_to_say_and_a_prompt_without_room_are_told(speaker):
    with pytest.raises(UserError, match="nothing to say"):
        list(speaker.stream(replace(TWO, text="...")))
    long = Reference("Long.", np.ones((6, speaker.model.config.max_seq_len), np.int64))
    with pytest.raises(UserError, match="too long for this model"):
        list(speaker.stream(replace(TWO, references=(long,))))
