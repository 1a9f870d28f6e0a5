"""What one client may ask of the server, so that none can take it from the others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on requests, answers and waiting. Times in seconds."""

    waiting: int = 8  # requests in the queue, beside the one that is spoken
    unread: int = 8  # answers that are spoken and not yet fetched, beside those
    characters: int = 4096  # of a text, as OpenAI has it
    headers_s: float = 10.0  # for the head of a request
    body_s: float = 30.0  # for its body
    stall_s: float = 60.0  # for a client to take the next piece of sound (a player that is paused takes none)
    unread_bytes: int = 64 << 20  # of one answer; beyond, speaking waits for its reader
    grace_s: float = 30.0  # for the sentence being spoken when the server is told to stop

    @property
    def body_bytes(self) -> int:
        """Largest body: a character takes up to 12 bytes of JSON, and clients send instructions as long as the text."""
        return 2 * 12 * self.characters + (16 << 10)

    @property
    def open_requests(self) -> int:
        """Most requests that may hold memory at once: waiting, spoken, and not yet fetched."""
        return self.waiting + 1 + self.unread
