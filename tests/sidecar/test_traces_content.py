"""Messages on spans: by setting, in the conventions' JSON, bounded, without the key; and never unasked.

Covers: text, parts, tool calls and their answers; plain, compressed and streamed answers; long ones; the key in the
upstream's words, plain and compressed.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from harness import answers
from harness.otlp import OtlpSink
from harness.process import Sidecar, Start
from harness.traces import Tree, tree, unwatched
from harness.upstream import ScriptedUpstream

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
PROMPT = "a-private-prompt"


def chat(sink: OtlpSink, sidecar: Sidecar, scenario: str | None = None, **fields: Any) -> Tree:
    with sidecar.requests() as lines:
        sidecar.chat(scenario, headers={"user-agent": "an-app/1.0"}, **fields)
    return tree(sink, lines[0], 1)


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [
        {"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
    ]},
    {"role": "tool", "tool_call_id": "call_0", "content": "sunny"},
]  # fmt: skip
ASKED = [
    {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
    {"role": "user", "parts": [{"type": "text", "content": PROMPT}, {"type": "image_url"}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "call_0", "name": "weather", "arguments": "{}"}],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_0", "response": "sunny"}]},
]


def test_no_content_unasked(sink: OtlpSink, traced: Sidecar) -> None:
    found = chat(sink, traced, messages=MESSAGES)
    for span in (found.server, found.model_call, *found.attempts):
        assert PROMPT not in str(span)
        assert "Paris" not in str(span)


@pytest.fixture(scope="module")
def telling(environ: dict[str, str], start: Start) -> Sidecar:
    return start(environ={**environ, CAPTURE: "true"})


def content(found: Tree, which: str) -> Any:
    return json.loads(found.model_call.attributes[f"gen_ai.{which}.messages"])


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_content_of_a_plain_chat(
    sink: OtlpSink, telling: Sidecar, upstream: ScriptedUpstream, packed: bool
) -> None:
    body = answers.dense(answers.completion(f"Paris, {telling.key}"))
    machine = zlib.compressobj(wbits=31)
    coded = machine.compress(body) + machine.flush()
    answer = answers.answer(200, coded, "content-encoding: gzip") if packed else answers.answer(200, body)
    with telling.requests() as lines:
        unwatched(
            telling,
            upstream.plan([answer]),
            {"model": "gpt-4", "messages": MESSAGES},
            {"accept-encoding": "gzip"} if packed else {},
        )
    found = tree(sink, lines[0], 1)
    assert content(found, "input") == ASKED
    assert content(found, "output") == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Paris, ***"}], "finish_reason": "stop"}
    ]


def test_content_of_a_streamed_chat(sink: OtlpSink, telling: Sidecar) -> None:
    found = chat(sink, telling, stream=True)
    assert content(found, "output") == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "Once upon a time"}],
            "finish_reason": "stop",
        }
    ]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    found = chat(sink, telling, stream=True, tools=tools)
    assert content(found, "output") == [
        {
            "role": "assistant",
            "parts": [
                {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": '{"city":"Paris"}'}
            ],
            "finish_reason": "tool_calls",
        }
    ]


def test_content_is_bounded(sink: OtlpSink, telling: Sidecar, upstream: ScriptedUpstream) -> None:
    long = "x" * 1_000_000
    many = [{"role": "user", "content": f"{number} " + "y" * 5000} for number in range(50)]
    scenario = upstream.plan(answers.sse(answers.chat_events([long])))
    found = chat(sink, telling, scenario, messages=[*many, {"role": "user", "content": long}], stream=True)
    asked = content(found, "input")
    assert len(found.model_call.attributes["gen_ai.input.messages"]) < 50_000
    assert asked[-1]["parts"][0]["content"] == "x" * 8192 + "…"
    assert asked[-2]["parts"][0]["content"].startswith("49 ")
    assert len(found.model_call.attributes.get("gen_ai.output.messages", "")) < 50_000
