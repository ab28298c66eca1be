"""The log: one JSON line a request, what debug adds, and what no level ever shows.

Covers: the fields of a request's line for each way to end; debug's account of request, answer and chunks; prompts and
answers only where the configuration asks for them; the app's own credentials; the readable form.
Left out: stream_stats (test_streams). That no key is in any output is asserted after every test of the suite.
"""

from __future__ import annotations

import json
import time

import pytest

from harness import answers
from harness.process import Sidecar, Start
from harness.upstream import ScriptedUpstream

PROMPT = "a-private-prompt"
SAID = "a-private-answer"
APPS_KEY = "sk-of-the-app-itself"


def talk(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    """Plain, streaming, refused, failed, each with words that are private."""
    messages = [{"role": "user", "content": PROMPT}]
    headers = {"authorization": f"Bearer {APPS_KEY}", "cookie": f"session={APPS_KEY}"}
    good = upstream.plan([answers.json_answer(answers.completion(SAID))])
    stream = upstream.plan(answers.sse(answers.chat_events([SAID])))
    told = upstream.plan(
        [answers.error(401, f"Incorrect API key provided: {sidecar.key}", "x", "invalid_api_key")]
    )
    with sidecar.figures(4):
        sidecar.chat(good, headers, messages=messages)
        sidecar.chat(stream, headers, messages=messages, stream=True)
        sidecar.chat(good, headers, messages=messages, temperature=9)
        sidecar.chat(told, headers, messages=messages)


def test_one_line_a_request(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    with sidecar.requests(4) as lines:
        talk(sidecar, upstream)
    by_end = {(line["end"], line["stream"]): line for line in lines}
    assert set(by_end) == {
        ("completed", False),
        ("completed", True),
        ("refused", False),
        ("failed", False),
    }
    for line in lines:
        assert {"time", "level", "request_id", "method", "path", "endpoint", "status", "duration_ms"} <= set(
            line
        )
        assert (line["method"], line["path"]) == ("POST", "/v1/chat/completions")
    assert by_end["completed", False]["usage"] == answers.USAGE
    assert by_end["refused", False]["param"] == "temperature"
    assert by_end["failed", False]["error"] == "upstream_http_401"
    assert by_end["failed", False]["level"] == "warning"


@pytest.mark.parametrize("level", ["info", "debug"])
def test_nothing_private_unless_asked_for(start: Start, upstream: ScriptedUpstream, level: str) -> None:
    sidecar = start({"logging": {"level": level}})
    talk(sidecar, upstream)
    text = "\n".join(sidecar.output)
    for private in (PROMPT, SAID, APPS_KEY, sidecar.key):
        assert private not in text


def test_debug_tells_the_steps(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"logging": {"level": "debug"}})
    talk(sidecar, upstream)
    debug = [line for line in sidecar.lines if line["level"] == "debug"]
    assert len(debug) > 8
    assert len({line["message"] for line in debug}) >= 3
    text = json.dumps(debug)
    for word in ("request", "chunk", "/v1/chat/completions", "401"):
        assert word in text, word


def test_content_where_it_is_asked_for(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"logging": {"level": "debug", "content": True}})
    talk(sidecar, upstream)
    text = "\n".join(sidecar.output)
    assert PROMPT in text
    assert SAID in text
    assert APPS_KEY not in text
    assert sidecar.key not in text


def test_a_key_that_the_upstream_repeats_is_masked_in_the_line(
    sidecar: Sidecar, upstream: ScriptedUpstream
) -> None:
    """Wherever it repeats it: what the line tells of an error is the upstream's own word."""
    repeated = answers.error(401, "no", sidecar.key, f"code {sidecar.key}", f"x-request-id: {sidecar.key}")
    with sidecar.requests(1) as lines:
        sidecar.chat(upstream.plan([repeated]))
    (line,) = lines
    assert line["error_message"] == "code ***, ***"
    assert line["upstream_request_id"] == "***"
    assert sidecar.key not in "\n".join(sidecar.output)


def test_content_needs_debug_too(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"logging": {"level": "info", "content": True}})
    talk(sidecar, upstream)
    assert PROMPT not in "\n".join(sidecar.output)


def test_a_level_can_be_quieter(spawn: Start, upstream: ScriptedUpstream) -> None:
    sidecar = spawn()
    config = json.loads(sidecar.config.read_text())
    config["logging"] = {"level": "warning"}
    sidecar.config.write_text(json.dumps(config))
    deadline = time.monotonic() + 3
    while sidecar.admin("/status").json["generation"] < 2:
        assert time.monotonic() < deadline, "no reload"
        time.sleep(0.02)
    mark = len(sidecar.lines)
    assert sidecar.chat().status == 200
    scenario = upstream.plan([answers.error(401, "no", "x", "y")])
    assert sidecar.chat(scenario).status == 401
    sidecar.line(lambda line: line.get("status") == 401, "the failure", after=mark)
    assert [line["status"] for line in sidecar.lines[mark:]] == [401]


def test_odd_paths_do_not_break_lines(sidecar: Sidecar) -> None:
    with sidecar.requests(1) as lines:
        sidecar.call("GET", "/v1/files/%0a%22%7b%c3%a9?q=%00")
    assert lines[0]["path"].startswith("/v1/files/%0a")
