"""Look whether this machine can fine-tune: the check behind `finetune_tts.py --doctor`.

Each line says what was found and, where something is wrong, how to mend it here. The checks run in a process of their
own, so that neither a package that crashes while it is imported nor a program that hangs ends them. Nothing is
downloaded, and nothing stays behind.
"""

from .findings import Finding, report
from .supervise import diagnose, main

__all__ = ["Finding", "diagnose", "main", "report"]
