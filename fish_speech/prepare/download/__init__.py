"""Recordings behind addresses: yt-dlp as a library finds them and fetches the best audio, once.

What was fetched is kept in a folder with an index, so that a second run needs no network; what was cut off continues.
Pages are not trusted: yt-dlp gets options from here alone, loads no plugin, http and https are the only protocols, and
no name, size or length that a page gives decides where or how much is written. One program may be started: deno, for
YouTube alone, where it is installed (see youtube.py).

Two variables of the environment widen this: FISH_SPEECH_COOKIES names a cookies.txt to send (for recordings that need
a login), FISH_SPEECH_JS_RUNTIME another of yt-dlp's JavaScript runtimes to start instead of deno.
"""

from .address import is_url
from .index import Download
from .run import download

__all__ = ["Download", "download", "is_url"]
