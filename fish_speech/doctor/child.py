"""The process that does the looking: `python -m fish_speech.doctor.child REQUEST FIRST`, started by supervise.py.

REQUEST is JSON, FIRST the number of the first check. Says in JSON lines which check it begins, and what each found.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

from ..device import allow_mps_fallback
from .checks import checks_for


def main() -> None:
    """Run the checks from FIRST on."""
    request, first = json.loads(sys.argv[1]), int(sys.argv[2])
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)  # packages may greet when they are imported: stdout is for our lines alone

        def tell(**message: object) -> None:
            channel.write(json.dumps(message) + "\n")
            channel.flush()

        warnings.simplefilter("ignore")
        allow_mps_fallback(request["device"], False)
        base = request["base"]
        checks = checks_for(request["model_version"], request["device"], None if base is None else Path(base))
        for number, check in enumerate(checks[first:], first):
            tell(begin=number, name=check.name, limit_s=check.limit_s)
            for finding in check.run():
                tell(finding=asdict(finding))
        tell(done=True)


if __name__ == "__main__":
    main()
