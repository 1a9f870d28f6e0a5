"""Who may have the files of a gated repository: what the hub refused, and the way in. The token itself is never said."""

from __future__ import annotations

import os

from .errors import UserError
from .licences import LICENCES
from .versions import ModelVersion


def refused(version: ModelVersion, status: int | None, said: str | None) -> UserError:
    """The error for files that the hub gives only to accounts that accepted their terms: what is wrong, and the way."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    page, token = f"{constants.ENDPOINT}/{version.hub_id}", token_in_words()
    why = "its files are given only to accounts that accepted its terms"
    if "authorization" not in build_hf_headers():
        why += f", and no token was sent that says whose account asks ({token})"
    elif status == 401:
        why += f", and it does not know the token that was sent ({token}): it is mistyped, or no longer valid"
    else:
        why += f": the account of the token has not, or the token may not read gated repositories ({token})"
    if said:
        why += f"; the hub says: {' '.join(said.split())[:200]}"
    licence = f" (licence {LICENCES[version.name][0]})" if version.name in LICENCES else ""
    return UserError(
        f"{constants.ENDPOINT} refuses access to {version.hub_id}",
        why,
        f"do these three:\n"
        f"    1. accept the terms{licence} at {page}, logged in to the account whose token you use\n"
        f"    2. hf auth login, or set HF_TOKEN=hf_...; a token with fine-grained rights must have read access to public "
        f"gated repositories, see {constants.ENDPOINT}/settings/tokens\n"
        f"    3. run the same command again",
    )


def token_in_words() -> str:
    """Which token goes to the hub, without saying it."""
    from huggingface_hub.utils import build_hf_headers

    if os.environ.get("HF_TOKEN"):
        return "HF_TOKEN is set"
    return "HF_TOKEN is not set" + (
        ", the token is that of hf auth login" if "authorization" in build_hf_headers() else ""
    )
