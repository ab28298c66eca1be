"""What the chunks of one chat stream have in common, so that each need not be read as JSON to be known.

Enters: a chunk that was read, then others. Leaves: whether another says just what that one said, with other output.
Pure. Must not take one chunk for another that a reader of JSON would tell apart in anything but the text of its output.
"""

from __future__ import annotations

import re
from typing import Any, Final

Form = tuple[bytes, ...]
"""A chunk's bytes but for the strings in it that change."""

_CONTENT: Final = b'"content":"'
_PADDING: Final = b'"obfuscation":"'
_ODD: Final = re.compile(rb"[\x00-\x1f\\]")


def form_of(data: bytes, found: dict[str, Any]) -> Form | None:
    """What stays the same from one chunk of output to the next: a chat chunk without its one choice's content, and
    without the padding that OpenAI adds against guesses by length. None where it has another shape, or an end."""
    choices = found.get("choices")
    if not (isinstance(choices, list) and len(choices) == 1) or choices[0].get("finish_reason"):
        return None
    delta = choices[0].get("delta")
    content = delta.get("content") if isinstance(delta, dict) else None
    if not content or not isinstance(content, str) or data.count(_CONTENT) != 1:
        return None
    begin = data.index(_CONTENT) + len(_CONTENT)
    end = data.find(b'"', begin)
    if _ODD.search(data, begin):
        return None
    pad = found.get("obfuscation")
    at = data.find(_PADDING, end)
    if not isinstance(pad, str) or at < 0:
        return (data[:begin], data[end:])
    at += len(_PADDING)
    rest = data.find(b'"', at)
    return (data[:begin], data[end:at], data[rest:])


def has_form(data: bytes, form: Form) -> bool:
    """Whether a chunk is a known one with another content: then it says what that one said. Between the parts that
    stay the same stand strings without an escape, so that no reading of the JSON could find anything else."""
    first = form[0]
    if not data.startswith(first) or _ODD.search(data, len(first)):
        return False
    at = len(first)
    end = data.find(b'"', at)
    if end <= at:
        return False
    for part in form[1:-1]:
        if not data.startswith(part, end):
            return False
        end = data.find(b'"', end + len(part))
    return end >= 0 and data[end:] == form[-1]
