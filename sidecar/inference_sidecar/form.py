"""What the chunks of one chat stream have in common, so that each need not be read as JSON to be known.

Enters: a chunk that was read, then others. Leaves: whether another says just what that one said, with other output, or how
many in a row.
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
_BEGIN: Final = b"data: "
_END: Final = b"\n\n"
_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C
_BLANK: Final = 0x20


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
    return _end_of(data, 0, form) == len(data)


def event_form(form: Form) -> Form | None:
    """The form of a whole event that has one line of such a chunk; None where no line can have it."""
    if b"".join(form).find(b"\n") >= 0:
        return None
    return (_BEGIN + form[0], *form[1:-1], form[-1] + _END)


def alike(piece: bytes, start: int, form: Form) -> tuple[int, int]:
    """How many events of a known form stand one after the other from `start` on, and where they end."""
    count, end = 0, start
    while (after := _end_of(piece, end, form)) > end:
        count += 1
        end = after
    return count, end


def _end_of(data: bytes, start: int, form: Form) -> int:
    """Where what stands at `start` ends, if it has the form; else -1."""
    at = start
    last = len(form) - 1
    for place in range(last):
        part = form[place]
        end = at + len(part)
        if data[at:end] != part:
            return -1
        at = _end_of_text(data, end)
        if at < 0 or (at == end and not place):  # without output it is another chunk
            return -1
    part = form[last]
    end = at + len(part)
    return end if data[at:end] == part else -1


def _end_of_text(data: bytes, start: int) -> int:
    """Where the string ends that has begun; -1 where it has an escape, or no end."""
    at, size = start, len(data)
    while at < size:
        byte = data[at]
        if byte == _QUOTE:
            return at
        if byte < _BLANK or byte == _BACKSLASH:
            return -1
        at += 1
    return -1
