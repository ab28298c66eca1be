"""That a target gives right answers, before anything of it is timed.

Enters: a running target, and what the upstream says without a proxy. Leaves: files of requests and of the answers that
are expected, or WrongAnswer. Must not: let a target pass that changed what an app reads.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from .load import Load, client
from .targets import SCRIPTS, Running, Target, ask

DIRECT = Target("direct")
BIG_BYTES = 500_000


class WrongAnswer(Exception):
    """A target's answer differs from the upstream's; the message says where."""


def content(body: bytes) -> str:
    """What an app reads of an answer, of a stream or a plain one: the text, and how it finished."""
    text, finish = "", ""
    for choice in _choices(body.decode()):
        part: dict[str, Any] = choice.get("delta") or choice.get("message") or {}
        text += part.get("content") or ""
        finish = choice.get("finish_reason") or finish
    return f"{text}|{finish}"


def _choices(body: str) -> list[dict[str, Any]]:
    if not body.startswith("data:"):
        found: list[dict[str, Any]] = json.loads(body)["choices"]
        return found
    events = [line.removeprefix("data:").strip() for line in body.splitlines() if line.startswith("data:")]
    if events[-1] != "[DONE]":
        raise ValueError("a stream without its [DONE]")
    return [choice for event in events[:-1] for choice in json.loads(event)["choices"]]


def difference(given: bytes, expected: bytes, *, exact: bool) -> str:
    """What is wrong with an answer, in words; empty where nothing is."""
    if exact:
        if given == expected:
            return ""
        at = next(
            (
                number
                for number, (left, right) in enumerate(zip(given, expected, strict=False))
                if left != right
            ),
            min(len(given), len(expected)),
        )
        return f"{len(given)} bytes in place of {len(expected)}, the first difference at {at}"
    try:
        found = content(given)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        return f"not readable as an answer: {error!r}"
    wanted = content(expected)
    return "" if found == wanted else f"the text is {found[:80]!r} in place of {wanted[:80]!r}"


def prepare(running: Running, direct_port: int, work: Path) -> dict[str, Load]:
    """Check every script, and leave what the load needs: for each script, and as `big` for a body of 500 KB.

    Raises:
        WrongAnswer: An answer is not what it should be.

    """
    target, loads = running.target, {}
    for name in (*SCRIPTS, "big"):
        script = "plain" if name == "big" else name
        padding = BIG_BYTES if name == "big" else 0
        _, kind, expected = ask(direct_port, DIRECT.path, DIRECT.body(script))
        body = target.body(script, padding)
        if not running.tls:  # without a proxy in between there is nothing to check on TLS
            status, given_kind, given = ask(running.port, target.path, body)
            wrong = difference(given, expected, exact=target.exact)
            if status != 200 or given_kind.partition(";")[0] != kind.partition(";")[0]:
                wrong = f"status {status}, {given_kind}: {given[:200]!r}"
            if wrong:
                raise WrongAnswer(f"{target.name}, {name}: {wrong}")
        body_file, expected_file = (work / f"{target.name}.{name}.{part}" for part in ("body", "expected"))
        body_file.write_bytes(body)
        expected_file.write_bytes(expected)
        loads[name] = Load(
            body_file,
            expected_file if target.exact else None,
            0 if script == "plain" else expected.count(b"\n\n"),
        )
    return loads


def client_sees_faults(running: Running, loads: dict[str, Load]) -> None:
    """That the client would tell: it is given the wrong answers to expect, and must say so.

    Raises:
        WrongAnswer: It took them for right.

    """
    for asked, expected in (
        ("plain", "stream-5-2000"),
        ("stream-100-0", "plain"),
        ("stream-5-2000", "stream-100-0"),
    ):
        wrong = replace(loads[asked], expected=loads[expected].expected)
        short = replace(loads[asked], expected=None, events=loads[asked].events + 1)
        for load in (wrong, short):
            if not client(running, load, 0.02, warmup=0).figures()["fault"]:
                raise WrongAnswer(
                    f"the client took the answer to {asked} for {expected}'s, or for a longer one"
                )
