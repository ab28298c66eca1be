"""What is measured in which order, and what passes for the same answer."""

from __future__ import annotations

import json

import pytest

from data_path.__main__ import _chosen, _scenarios, options
from data_path.check import difference
from data_path.figures import DIRECT, LITELLM, NGINX, SIDECAR
from data_path.run import Plan, order
from data_path.targets import QUIET, Target


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_every_repetition_has_every_target_once(count: int) -> None:
    for repetition in range(6):
        assert sorted(order(count, repetition)) == list(range(count))


def test_repetitions_differ_in_who_begins() -> None:
    assert len({order(5, repetition)[0] for repetition in range(5)}) > 2
    assert order(5, 0) != order(5, 1)


def test_direct_is_always_measured_and_unknown_names_are_refused() -> None:
    chosen = _chosen(options(["--targets", "nginx,sidecar", "--with", "litellm"]))
    assert [target.name for target in chosen] == [DIRECT, NGINX, SIDECAR, LITELLM]
    with pytest.raises(SystemExit, match="no such target: apache"):
        _chosen(options(["--targets", "apache"]))
    with pytest.raises(SystemExit, match="no such measurement: speed"):
        _scenarios(options(["--only", "plain,speed"]))


def test_variables_of_all_sidecars_and_of_one() -> None:
    words = ["--targets", "sidecar,sidecar-quiet", "--set", "A=1", "--variant", "own:A=2,B=3"]
    found = {target.name: dict(target.environment) for target in _chosen(options(words))}
    assert found[SIDECAR]["A"] == found[QUIET]["A"] == "1"
    assert (found["sidecar-own"]["A"], found["sidecar-own"]["B"]) == ("2", "3")
    assert "OTEL_SDK_DISABLED" in found[QUIET]
    assert "OTEL_SDK_DISABLED" not in found[SIDECAR]


def test_targets_that_can_speak_tls_upstream_are_measured_twice() -> None:
    targets = [Target(NGINX, tls=True), Target(LITELLM)]
    plan = Plan(targets, ["plain", "big", "plain-tls"], 2, 1, 0.03, 1, 0, 1)
    assert [(target.name, tls) for target, tls in plan.sessions] == [
        (NGINX, False),
        (LITELLM, False),
        (NGINX, True),
    ]
    assert (plan.of(tls=False), plan.of(tls=True)) == (["plain", "big"], ["plain"])
    assert plan.most_again == 2 * 5 // 2


def test_what_is_not_asked_for_is_not_started() -> None:
    sessions = Plan([Target(NGINX, tls=True)], ["paced-tls"], 1, 1, 0.03, 1, 0, 1).sessions
    assert [tls for _, tls in sessions] == [True]
    assert _scenarios(options(["--only", "plain,paced-tls"])) == ["plain", "paced-tls"]
    assert len(_scenarios(options([]))) == 11


def _stream(words: list[str], end: str = "data: [DONE]\n\n", **more: object) -> bytes:
    choices: list[dict[str, object]] = [{"delta": {"content": word}, "finish_reason": None} for word in words]
    choices.append({"delta": {}, "finish_reason": "stop"})
    events = [json.dumps({"choices": [choice], **more}) for choice in choices]
    return ("".join(f"data: {event}\n\n" for event in events) + end).encode()


def test_bytes_must_be_the_same_where_they_are_passed_on() -> None:
    assert not difference(b"abc", b"abc", exact=True)
    assert difference(b"abd", b"abc", exact=True) == "3 bytes in place of 3, the first difference at 2"
    assert difference(b"ab", b"abc", exact=True) == "2 bytes in place of 3, the first difference at 2"


def test_the_text_must_be_the_same_where_answers_are_written_anew() -> None:
    expected = _stream(["one", "two"])
    assert not difference(_stream(["one", "two"], id="another"), expected, exact=False)
    assert not difference(_stream(["onetwo"]), expected, exact=False)
    assert "the text is" in difference(_stream(["two", "one"]), expected, exact=False)
    assert "without its [DONE]" in difference(_stream(["one", "two"], end=""), expected, exact=False)
    assert "not readable" in difference(b"<html>", expected, exact=False)
