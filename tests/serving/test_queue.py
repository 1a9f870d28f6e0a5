"""One voice for many: order, room, hanging up, breaking off, ending. The speaker's frames are let through one by one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from fish_speech.errors import UserError
from fish_speech.serving.limits import Limits
from fish_speech.serving.queue import FAILED, HungUp, Job, SpeechQueue
from fish_speech.serving.voices import VoiceShelf
from fish_speech.speaking.sinks import to_pcm16

from .harness import FRAME, GatedSpeaker, Served, frame, raw_request, serving, until

LINGER = "hh" if sys.platform == "win32" else "ii"


class Later:
    """Requests in threads."""

    def __init__(self, served: Served):
        self._served, self._pool = served, ThreadPoolExecutor(16)

    def say(self, text: str, **fields: Any) -> Future:
        return self._pool.submit(self._served.say, text, **{"response_format": "pcm", **fields})


def samples(response: httpx.Response) -> int:
    assert response.status_code == 200, response.text
    return len(response.content) // 2


def test_sound_arrives_while_the_rest_is_not_yet_spoken(gated):
    served, speaker = gated
    speaker.let(2)
    with served.client.stream(
        "POST", "/v1/audio/speech", json={"input": "abcdef", "response_format": "wav"}
    ) as response:
        pieces = response.iter_bytes()
        got = b""
        while len(got) < 44 + 2 * 2 * FRAME:
            got += next(pieces)
        assert speaker.frames == [2] and speaker.ended == []
        speaker.let(100)
        got += b"".join(pieces)
    sound = np.concatenate([frame(number) for number in range(6)])
    assert got[44:] == to_pcm16(sound).tobytes()  # as cli_tts.py writes it
    assert response.headers["x-sample-rate"] == "24000" and response.headers["x-seed"] == "42"


def one_speaks_one_waits(served, speaker):
    """Ask for two texts; return who asks, and both answers to come."""
    later = Later(served)
    first = later.say("first")
    until(lambda: speaker.texts == ["first"])
    second = later.say("second")
    until(lambda: served.queue.length == 1)
    return later, first, second


def test_requests_are_spoken_in_turn_and_a_full_queue_says_when_to_come_back(gated):
    served, speaker = gated
    later, first, second = one_speaks_one_waits(served, speaker)
    third = later.say("third")
    until(lambda: served.queue.length == 2)
    refused = served.say("fourth")
    assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["error"]["code"] == "queue_full"
    told = served.client.get("/health").json()
    assert (told["status"], told["speaking"], told["waiting"], told["most_waiting"]) == ("ready", True, 2, 2)
    speaker.let(100)
    assert [samples(future.result()) // FRAME for future in (first, second, third)] == [5, 6, 5]
    assert speaker.texts == ["first", "second", "third"]
    assert samples(served.say("fifth", response_format="pcm")) == 5 * FRAME


def test_a_queue_without_room_speaks_one_after_the_other_and_refuses_who_comes_between(tmp_path):
    speaker = GatedSpeaker()
    with serving(lambda: speaker, VoiceShelf(tmp_path), Limits(waiting=0)) as served:
        first = Later(served).say("first")
        until(lambda: speaker.texts == ["first"])
        assert served.say("second").status_code == 429
        speaker.let(1000)
        assert samples(first.result()) == 5 * FRAME
        for _ in range(20):  # whoever has heard the end finds room at once
            assert samples(served.say("again", response_format="pcm")) == 5 * FRAME


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_hangs_up_in_its_body_or_sends_nonsense_leaves_no_traceback(gated, caplog, reset):
    served, speaker = gated
    head = b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
        client.sendall(head + b"application/json\r\nContent-Length: 100\r\n\r\n{")
        until(lambda: served.server.server_state.tasks)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(LINGER, 1, 0))
    until(lambda: not served.server.server_state.connections and not served.server.server_state.tasks)
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
        client.sendall(head + b"text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 415 ")
        client.sendall(b"no chunk\r\n")  # after the answer
        with contextlib.suppress(ConnectionResetError):
            while client.recv(1000):
                pass
    assert not [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"]
    speaker.let(10)
    assert served.say("abc").status_code == 200


def test_a_client_that_hangs_up_while_waiting_leaves_the_queue_at_once(gated):
    served, speaker = gated
    later = Later(served)
    first = later.say("first")
    until(lambda: speaker.texts == ["first"])
    gone = raw_request(served, "gone")
    until(lambda: served.queue.length == 1)
    gone.close()
    until(lambda: served.queue.length == 0)
    assert speaker.ended == []
    speaker.let(100)
    assert samples(first.result()) == 5 * FRAME and speaker.texts == ["first"]


def test_a_client_that_hangs_up_stops_its_generation_within_a_frame_and_the_next_is_served(gated):
    served, speaker = gated
    gone = raw_request(served, "a" * 50)
    speaker.let(3)
    until(lambda: speaker.frames == [3])
    waiting = Later(served).say("next")
    until(lambda: served.queue.length == 1)
    gone.close()
    until(lambda: speaker.ended == ["stopped"])
    assert speaker.frames[0] == 3
    speaker.let(100)
    assert samples(waiting.result()) == 4 * FRAME


def test_a_bug_before_the_first_sound_is_a_500_and_the_server_lives_on(gated, caplog):
    served, speaker = gated
    speaker.let(100)
    answer = served.say("!abc")
    assert answer.status_code == 500
    assert answer.json() == {
        "error": {
            "message": "the server failed to speak this; its log says why",
            "type": "server_error",
            "param": None,
            "code": "internal_error",
        }
    }
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)
    assert samples(served.say("abc", response_format="pcm")) == 3 * FRAME


@pytest.mark.parametrize("form", ["pcm", "wav", "mp3"])
def test_a_bug_after_the_first_sound_breaks_the_connection_and_nobody_takes_the_part_for_the_whole(gated, form):
    served, speaker = gated
    speaker.let(5)
    with (
        pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)),
        served.client.stream(
            "POST", "/v1/audio/speech", json={"input": "abcde!f", "response_format": form}
        ) as response,
    ):
        assert response.status_code == 200
        speaker.let(100)
        for _ in response.iter_raw():
            pass
    assert speaker.ended == ["failed"]
    assert samples(served.say("abc", response_format="pcm")) == 3 * FRAME


def test_a_bug_in_a_format_that_is_sent_whole_is_a_500(gated):
    served, speaker = gated
    speaker.let(100)
    assert served.say("abcde!f", response_format="flac").status_code == 500


def test_a_model_that_says_nothing_is_an_error_and_no_empty_sound(gated):
    served, speaker = gated
    speaker.let(100)
    answer = served.say("000", response_format="wav")
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "empty_speech"


def test_a_client_that_takes_no_sound_is_broken_off_and_the_next_is_served(gated):
    served, speaker = gated
    speaker.let(100_000)
    idle = raw_request(served, "a" * 4000)  # 16 MB of sound, more than sockets hold
    until(lambda: speaker.ended)
    assert samples(served.say("abc", response_format="pcm")) == 3 * FRAME
    until(lambda: not served.queue._open)
    with pytest.raises(ConnectionError):
        while idle.recv(1 << 20):
            pass
    idle.close()


def test_speaking_waits_for_a_reader_who_is_far_behind(tmp_path):
    speaker = GatedSpeaker(is_open=True)
    with serving(lambda: speaker, VoiceShelf(tmp_path), Limits(unread_bytes=1 << 20)) as served:
        slow = raw_request(served, "a" * 4000, "wav")
        until(lambda: speaker.frames and speaker.frames[0] > 200)
        time.sleep(0.3)
        assert speaker.frames[0] < 3900 and speaker.ended == []
        slow.close()
        until(lambda: speaker.ended == ["closed"] or speaker.ended == ["stopped"])


def test_answers_that_nobody_fetches_do_not_pile_up(tmp_path):
    speaker = GatedSpeaker(is_open=True)
    with serving(lambda: speaker, VoiceShelf(tmp_path), Limits(waiting=1, unread=2)) as served:
        idle = []
        for number in range(4):
            until(lambda count=number: speaker.ended.count("done") == count)
            idle.append(raw_request(served, "a" * 1700))  # 7 MB of sound, more than sockets hold
        until(lambda: speaker.ended.count("done") == 4)
        assert served.say("abc").status_code == 429
        for client in idle:
            client.close()
        until(lambda: served.say("abc").status_code == 200)


def test_while_the_model_is_loaded_health_says_so_and_requests_are_asked_to_come_back(tmp_path):
    speaker, loaded = GatedSpeaker(is_open=True), threading.Event()

    def load() -> GatedSpeaker:
        loaded.wait(30)
        return speaker

    with serving(load, VoiceShelf(tmp_path), ready=False) as served:
        health = served.client.get("/health")
        assert health.status_code == 503 and health.json()["status"] == "loading"
        answer = served.say("abc")
        assert answer.status_code == 503 and answer.headers["retry-after"]
        loaded.set()
        until(lambda: served.client.get("/health").status_code == 200)
        assert served.say("abc").status_code == 200


def test_an_ending_server_does_not_wait_for_the_model():
    going_on = threading.Event()

    def load() -> Any:
        going_on.wait(60)
        return GatedSpeaker()

    queue = SpeechQueue(load, Limits())
    queue.start()
    queue.close()
    queue.join(timeout_s=90)
    assert queue.is_running
    going_on.set()
    until(lambda: not queue.is_running)


def test_a_model_that_cannot_be_loaded_ends_the_server_with_the_reason(tmp_path):
    error = UserError("there is no model", "the folder is empty", "check --model-path")

    def load() -> None:
        raise error

    with serving(load, VoiceShelf(tmp_path), ready=False) as served:
        until(lambda: served.queue.state == FAILED)
        assert served.queue.error is error


def test_an_ending_server_finishes_the_sentence_and_turns_away_those_who_wait(gated):
    served, speaker = gated
    _, first, second = one_speaks_one_waits(served, speaker)
    served.server.should_exit = True
    refused = second.result()
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "closing"
    speaker.let(100)
    assert samples(first.result()) == 5 * FRAME
    assert speaker.texts == ["first"]


def test_ctrl_c_again_breaks_the_sentence_off_without_a_traceback(gated, caplog):
    served, speaker = gated
    speaker.let(2)
    begun = Later(served).say("abcdef")
    until(lambda: speaker.frames == [2])
    served.server.should_exit = served.server.force_exit = True
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        begun.result(30)
    until(lambda: speaker.ended == ["stopped"])
    assert not [record for record in caplog.records if record.exc_info]


def test_an_ending_server_waits_for_a_sentence_only_so_long(tmp_path, caplog):
    speaker = GatedSpeaker()
    with serving(lambda: speaker, VoiceShelf(tmp_path), Limits(grace_s=0.5)) as served:
        speaker.let(2)
        begun = Later(served).say("abcdef")
        until(lambda: speaker.frames == [2])
        served.server.should_exit = True
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            begun.result(30)
        until(lambda: speaker.ended == ["stopped"])
    assert "Traceback" not in caplog.text


def test_a_job_hands_over_all_bytes_in_order_and_then_its_error():
    async def drain() -> bytes:
        job = Job(None, "pcm", 1000)  # type: ignore[arg-type]  # its request is not looked at

        def speak() -> None:
            for number in range(2000):
                job.put(bytes([number % 251]) * (number % 7))
            job.end(ZeroDivisionError())

        thread = threading.Thread(target=speak)
        thread.start()
        got = b""
        with pytest.raises(ZeroDivisionError):
            while data := await job.read():
                got += data
        thread.join()
        job.stop()
        with pytest.raises(HungUp):
            await job.read()
        return got

    expected = b"".join(bytes([number % 251]) * (number % 7) for number in range(2000))
    assert asyncio.run(drain()) == expected
