"""The process that does the looking: `python -m fish_speech.doctor.child REQUEST FIRST`, started by supervise.py.

REQUEST is JSON, FIRST the number of the first check. Says in JSON lines which check it begins, and what each found.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from ..device import allow_mps_fallback
from .checks import Check, checks_for


def look(checks: Callable[[], Sequence[Check]], first: int, device: str) -> None:
    """Run the checks from `first` on; they are made when stdout belongs to our lines alone."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)  # packages may greet when they are imported

        def tell(**message: object) -> None:
            channel.write(json.dumps(message) + "\n")
            channel.flush()

        warnings.simplefilter("ignore")
        allow_mps_fallback(device, False)
        for number, check in enumerate(checks()[first:], first):
            tell(begin=number, name=check.name, limit_s=check.limit_s)
            for finding in check.run():
                tell(finding=asdict(finding))
        tell(done=True)


def main() -> None:
    """Look at what the request on the command line names."""
    request, first = json.loads(sys.argv[1]), int(sys.argv[2])
    base = request["base"]
    device = request["device"]
    look(lambda: checks_for(request["model_version"], device, None if base is None else Path(base)), first, device)


if __name__ == "__main__":
    main()
