"""Prometheus text as tests look at it.

Enters: what /metrics of operator or injector said. Leaves: samples by name and labels, as they stand there. The form
is checked on the way: every family is introduced by HELP and TYPE, once, and no sample is there twice.
"""

from __future__ import annotations

import re
from typing import Final

SAMPLE: Final = re.compile(r'^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$')
PREFIX: Final = "inference_operator_"


def samples(text: str) -> dict[str, float]:
    """`name{labels}` without the prefix that all of them have; labels in the alphabet's order."""
    assert text.endswith("\n")
    found: dict[str, float] = {}
    introduced: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in introduced
            introduced.append(name)
        elif line.startswith("# TYPE "):
            assert line.split()[2] == introduced[-1]
        else:
            matched = SAMPLE.match(line)
            assert matched, line
            assert matched[1].startswith(PREFIX)
            assert matched[1].removeprefix(introduced[-1]) in ("", "_bucket", "_sum", "_count")
            key = f"{matched[1].removeprefix(PREFIX)}{{{matched[2] or ''}}}"
            assert key not in found
            found[key] = float(matched[3])
    return found
