"""Protocol buffers as OTLP writes them: the few forms that spans and metrics are made of.

Enters: plain values. Leaves: bytes. Pure. Must not raise for what a value holds: a half of a surrogate pair becomes
`?`, and an attribute that no field can hold (an integer of more than 64 bits) is left out, for one that cannot be
encoded would cost all that go with it.

Whatever is known beforehand about an attribute is prepared once: `texts` and its like make the function that adds the
value. Numbers of fields are those of opentelemetry-proto 1.x, which never change their meaning.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

Value = str | bool | int | float | Sequence[str]
"""What an attribute may be."""

OF_RESOURCE: Final = b"\x0a"
OF_EVENT: Final = b"\x1a"
OF_SPAN: Final = b"\x4a"
OF_NUMBER: Final = b"\x3a"
OF_HISTOGRAM: Final = b"\x4a"
"""Where attributes stand in each message: field 1, 3, 9, 7 and 9."""

_ONE: Final = tuple(bytes((number,)) for number in range(128))
_ALL_BITS: Final = 2**64 - 1
_LEAST: Final = -(2**63)
_MOST: Final = 2**63 - 1
_DOUBLE: Final = struct.Struct("<d").pack
_FIXED64: Final = struct.Struct("<Q").pack


def varint(number: int) -> bytes:
    """A number of at most 64 bits; a negative one as its two's complement."""
    if 0 <= number < 128:
        return _ONE[number]
    number &= _ALL_BITS
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def delimited(tag: bytes, payload: bytes) -> bytes:
    """A message or a text in its field."""
    return tag + varint(len(payload)) + payload


def double(tag: bytes, value: float) -> bytes:
    """A float in its field."""
    return tag + _DOUBLE(value)


def fixed64(tag: bytes, value: int) -> bytes:
    """A number of eight bytes in its field."""
    return tag + _FIXED64(value)


def text(tag: bytes, value: str) -> bytes:
    """A text in its field; an empty one is none."""
    return delimited(tag, value.encode("utf-8", "replace")) if value else b""


def attribute(tag: bytes, name: str, value: Value) -> bytes:
    """Any attribute, in the field of attributes that `tag` begins."""
    found = _any(value)
    if found is None:
        return b""
    return delimited(tag, delimited(b"\x0a", name.encode()) + delimited(b"\x12", found))


def attributes(tag: bytes, values: Mapping[str, Value]) -> bytes:
    """All of them."""
    return b"".join([attribute(tag, name, value) for name, value in values.items()])


def texts(name: str) -> Callable[[str], bytes]:
    """For a span's attribute that is a text."""
    key = delimited(b"\x0a", name.encode()) + b"\x12"
    of_key = len(key)
    shortest = 124 - of_key

    def encode(value: str) -> bytes:
        data = value.encode("utf-8", "replace")
        length = len(data)
        # Each of the three lengths is one byte.
        if length <= shortest:
            return b"J%b%b%b\n%b%b" % (_ONE[of_key + length + 3], key, _ONE[length + 2], _ONE[length], data)
        found = delimited(b"\x0a", data)
        return delimited(OF_SPAN, key + varint(len(found)) + found)

    return encode


def numbers(name: str) -> Callable[[int], bytes]:
    """For a span's attribute that is an integer."""
    key = delimited(b"\x0a", name.encode()) + b"\x12"
    leads = [
        delimited(OF_SPAN, key + _ONE[size + 1] + b"\x18" + bytes(size))[:-size] for size in range(1, 11)
    ]

    def encode(value: int) -> bytes:
        if not _LEAST <= value <= _MOST:
            return b""
        found = varint(value)
        return leads[len(found) - 1] + found

    return encode


def fractions(name: str) -> Callable[[float], bytes]:
    """For a span's attribute that is a float."""
    lead = attribute(OF_SPAN, name, 0.0)[:-8]

    def encode(value: float) -> bytes:
        return lead + _DOUBLE(value)

    return encode


def _any(value: Value) -> bytes | None:
    """An AnyValue; None where there is none for it."""
    if isinstance(value, str):
        return delimited(b"\x0a", value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + varint(value) if _LEAST <= value <= _MOST else None
    if isinstance(value, float):
        return b"\x21" + _DOUBLE(value)
    found = b"".join([delimited(b"\x0a", _any(one) or b"") for one in value])
    return delimited(b"\x2a", found)
