"""An upstream's list of models → the list that the app may see. Pure.

Enters: the body of GET /models. Leaves: the same with fewer entries, or the very same bytes where nothing is
taken out. Must not invent an entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from .records import Reason, Refusal


def visible(body: bytes, listed: Callable[[str], bool] | None) -> bytes:
    """Cut the list to the models for which `listed` is true. What is no list of models stays as it is."""
    if listed is None:
        return body
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        return body
    kept = [
        entry for entry in document["data"] if isinstance(entry, dict) and listed(str(entry.get("id", "")))
    ]
    if len(kept) == len(document["data"]):
        return body
    return json.dumps({**document, "data": kept}).encode()


def hidden(model: str | None, listed: Callable[[str], bool] | None) -> Refusal | None:
    """The refusal for a model that is not in the visible list, as OpenAI words it for one that is not there."""
    if model is None or listed is None or listed(model):
        return None
    shown = model[:100].encode("ascii", "backslashreplace").decode()
    return Refusal(
        Reason.MODEL_NOT_FOUND,
        f"The model '{shown}' does not exist or is not offered here.",
        "model",
        "model_not_found",
    )
