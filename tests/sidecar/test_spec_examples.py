"""The requirement's own examples, run as they are printed but for the host.

Covers: each curl command through a shell, the Python example (requests), the JavaScript example (node's fetch), in
front of a scripted upstream that behaves as OpenAI does; the examples of invalid parameters; the printed stream.
The files in tests/data/spec_examples are the printed text, unchanged.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import answers
from harness.client import read_events
from harness.evidence import EVIDENCE
from harness.process import Sidecar, clean_environment
from harness.upstream import ScriptedUpstream

EXAMPLES = Path(__file__).parent.parent / "data" / "spec_examples"
PRINTED_HOST = "localhost:3000"


def printed(name: str, sidecar: Sidecar) -> str:
    """The example with the sidecar's own port in place of the printed one."""
    text = (EXAMPLES / name).read_text()
    assert PRINTED_HOST in text or name.endswith(".js")
    return text.replace(PRINTED_HOST, f"localhost:{sidecar.port}")


def needed(program: str) -> str:
    """The path of a program; without it the test is skipped on a contributor's machine, and fails in CI."""
    path = shutil.which(program)
    if path is None:
        reason = f"{program} is not installed"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return path or program


def run(command: list[str], text: str | None = None) -> tuple[str, str]:
    """stdout and stderr of a command that succeeds."""
    done = subprocess.run(
        command, input=text, env=clean_environment(), capture_output=True, text=True, timeout=30, check=False
    )
    EVIDENCE.add(command[0], (done.stdout + done.stderr).encode())
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def curl(name: str, sidecar: Sidecar) -> tuple[str, str]:
    needed("curl")
    return run(["sh"], printed(name, sidecar))


def last_body(upstream: ScriptedUpstream) -> Any:
    return upstream.exchanges[-1].json


def test_basic_chat(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    body = json.loads(curl("basic_chat.sh", sidecar)[0])
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"]
    assert last_body(upstream)["messages"][0]["content"] == "What is the capital of France?"


def test_advanced_chat(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    body = json.loads(curl("advanced_chat.sh", sidecar)[0])
    assert body["usage"] == answers.USAGE
    sent = last_body(upstream)
    assert (sent["max_tokens"], sent["top_p"], sent["stop"], sent["seed"]) == (500, 0.9, ["END", "STOP"], 42)


@pytest.mark.parametrize("name", ["streaming_chat.sh", "streaming_debug.sh"])
def test_streaming_chat(sidecar: Sidecar, name: str) -> None:
    out, err = curl(name, sidecar)
    events = [data for _, data in read_events(out.encode())]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(data) for data in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert said == "Once upon a time"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    if name == "streaming_debug.sh":
        assert "text/event-stream" in err


@pytest.mark.parametrize(("param", "most"), [("temperature", "2"), ("top_p", "1")])
def test_invalid_parameters(sidecar: Sidecar, upstream: ScriptedUpstream, param: str, most: str) -> None:
    seen = len(upstream.exchanges)
    error = json.loads(curl(f"invalid_{param}.sh", sidecar)[0])["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert param in error["message"]
    assert most in error["message"], "the valid range is missing"
    assert len(upstream.exchanges) == seen


def test_list_models(sidecar: Sidecar) -> None:
    body = json.loads(curl("list_models.sh", sidecar)[0])
    assert body["object"] == "list"
    assert "gpt-4" in [model["id"] for model in body["data"]]


def test_health(sidecar: Sidecar) -> None:
    body = json.loads(curl("health.sh", sidecar)[0])
    assert body["status"] == "ok"
    assert {"total", "streaming", "active"} <= set(body["requests"])
    assert {"total", "by_type"} <= set(body["errors"])
    assert {"prompt", "completion", "total"} <= set(body["tokens"])
    assert {"started", "completed", "failed", "cancelled"} <= set(body["streams"])
    assert {"reachable", "checked_at", "latency_ms"} <= set(body["upstream"])
    assert {"latency_ms", "time_to_first_token_ms", "tokens_per_second"} <= set(body)
    assert body["requests"]["total"] >= body["errors"]["total"] == sum(body["errors"]["by_type"].values())


def test_python_requests(sidecar: Sidecar) -> None:
    out, _ = run([sys.executable, "-"], printed("requests_stream.py", sidecar))
    assert out == "Once upon a time"


def test_javascript_fetch(sidecar: Sidecar) -> None:
    """A page's relative URL has no meaning in node: the host is put before it, and an async function around."""
    node = needed("node")
    text = printed("fetch.js", sidecar)
    assert "fetch('/v1/" in text
    text = text.replace("fetch('/v1/", f"fetch('http://localhost:{sidecar.port}/v1/")
    out, _ = run([node, "-"], f"(async () => {{\n{text}\n}})();\n")
    assert out == "Once\n upon\n a time\n"


def test_the_printed_stream_comes_down_as_printed(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    """The response format that the requirement shows: usage in the chunk that finishes."""
    base = '{"id":"chatcmpl-123","object":"chat.completion.chunk","created":1234567890,"model":"gpt-4",'
    usage = '"usage":{"prompt_tokens":10,"completion_tokens":50,"total_tokens":60}}'
    lines = [
        base + '"choices":[{"index":0,"delta":{"role":"assistant"}}]}',
        base + '"choices":[{"index":0,"delta":{"content":"Once"}}]}',
        base + '"choices":[{"index":0,"delta":{"content":" upon"}}]}',
        base + '"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],' + usage,
        "[DONE]",
    ]
    events = [f"data: {line}\n\n".encode() for line in lines]
    scenario = upstream.plan(answers.sse(events))
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario, stream=True)
    assert answer.body == b"".join(events)
    assert (delta["tokens.total"], delta["streams.completed"]) == (60, 1)
