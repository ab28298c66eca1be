"""A model's name is a label where somebody vouches for it, and never because a client made it up.

Covers: names of the configuration; names that an upstream's whole answer confirmed, and how many; what fails, is
refused or cancelled; names too long or not encodable; 10,000 made-up names, against an upstream that knows none and
one that takes all, on sockets in part and in the room in full.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness import answers
from harness.metrics import measured, parse, scrape
from harness.process import Sidecar, Start, chat_body
from harness.upstream import SCENARIO, Exchange, Script, ScriptedUpstream
from inference_sidecar.records import End, Endpoint, Outcome
from inference_sidecar.telemetry import Figures, exposition
from inference_sidecar.telemetry.figures import MAX_ERROR_TYPES
from inference_sidecar.telemetry.metrics import MAX_MODEL_LENGTH, MAX_MODELS

MODEL, ANSWERED = "gen_ai_request_model", "gen_ai_response_model"
REQUESTS = "inference_sidecar_requests_total"
ON_SOCKETS = 600
IN_THE_ROOM = 10_000

UNKNOWN: Script = [answers.error(404, "no such model", "invalid_request_error", "model_not_found")]


def of_request(sidecar: Sidecar, call: Callable[[], object]) -> str | None:
    """The label that one request's model got."""
    with measured(sidecar) as delta:
        call()
    ((labels, _),) = delta.series(REQUESTS)
    return labels.get(MODEL)


def test_an_unknown_model_is_one_once_the_upstream_answers_with_it(
    spawn: Start, upstream: ScriptedUpstream
) -> None:
    sidecar = spawn()
    unknown, good = upstream.plan(UNKNOWN), upstream.plan([answers.json_answer(answers.completion())])
    nameless = upstream.plan([answers.json_answer({**answers.completion(), "model": None})])
    stream_cut = upstream.plan(
        [answers.sse_head(), answers.chunk(answers.delta({"content": "x"})), answers.END]
    )
    in_200 = upstream.plan([answers.json_answer({"error": {"message": "x"}, "model": "m"})])
    for scenario in (unknown, nameless, stream_cut, in_200):
        stream = scenario == stream_cut or None
        label = of_request(sidecar, lambda: sidecar.chat(scenario, model="m", stream=stream))  # noqa: B023
        assert label == "_OTHER"
    assert of_request(sidecar, lambda: sidecar.chat(model="m", n=0)) is None, (
        "refused: nothing was taken from it"
    )
    assert of_request(sidecar, lambda: sidecar.chat(good, model="m")) == "m"
    assert of_request(sidecar, lambda: sidecar.chat(unknown, model="m")) == "m", "from now on"
    assert of_request(sidecar, lambda: sidecar.call("GET", "/v1/models")) is None, "names none"
    assert scrape(sidecar).values(ANSWERED) == {"gpt-4", "_OTHER"}


def test_names_of_the_configuration(spawn: Start, upstream: ScriptedUpstream) -> None:
    """They are bounded by whoever wrote it; a pattern names nothing."""
    sidecar = spawn({"inference": {"default_model": "own", "allowed_models": ["own", "plain", "free-*"]}})
    failing = upstream.plan(UNKNOWN)
    assert of_request(sidecar, lambda: sidecar.chat(failing, model=None)) == "own"
    assert of_request(sidecar, lambda: sidecar.chat(failing, model="plain")) == "plain"
    assert of_request(sidecar, lambda: sidecar.chat(failing, model="free-1")) == "_OTHER"
    assert of_request(sidecar, lambda: sidecar.chat(model="denied")) is None, "refused"


def test_a_deployment_of_the_url(spawn: Start, upstream: ScriptedUpstream) -> None:
    sidecar = spawn(base_url=f"{upstream.url}/openai/deployments/my%20dep")
    failing = upstream.plan(UNKNOWN)
    assert of_request(sidecar, lambda: sidecar.chat(failing, model="my dep")) == "my dep"
    assert of_request(sidecar, lambda: sidecar.chat(failing, model="other")) == "_OTHER"
    assert of_request(sidecar, lambda: sidecar.chat(failing, model=None)) is None


def flood(sidecar: Sidecar, upstream: ScriptedUpstream, scenario: str | None) -> None:
    def some(lane: int) -> None:
        headers = {SCENARIO: scenario} if scenario else {}
        with sidecar.connect() as client:
            for number in range(lane, ON_SOCKETS, 4):
                client.request("POST", "/v1/chat/completions", chat_body(model=f"made-up-{number}"), headers)
                client.answer()

    with ThreadPoolExecutor(4) as apps:
        list(apps.map(some, range(4)))


def test_made_up_names_that_the_upstream_does_not_know(spawn: Start, upstream: ScriptedUpstream) -> None:
    sidecar = spawn()
    sidecar.chat(model="gpt-4")
    before = scrape(sidecar)
    with measured(sidecar, ON_SOCKETS) as delta:
        flood(sidecar, upstream, upstream.plan(UNKNOWN))
    assert delta.values(MODEL) == before.values(MODEL) | {"_OTHER"} == {"gpt-4", "_OTHER"}
    assert delta.values(ANSWERED) == {"gpt-4"}
    assert delta.series(REQUESTS, outcome="failed", error_type="upstream_http_404") == [
        (
            {
                "gen_ai_operation_name": "chat",
                "gen_ai_provider_name": "openai",
                MODEL: "_OTHER",
                "outcome": "failed",
                "error_type": "upstream_http_404",
            },
            ON_SOCKETS,
        )
    ]


def test_made_up_names_that_the_upstream_takes(spawn: Start, upstream: ScriptedUpstream) -> None:
    def agreeable(exchange: Exchange) -> Script:
        return [answers.json_answer(answers.completion(model=exchange.json["model"]))]

    with ScriptedUpstream(agreeable) as willing:
        sidecar = spawn(base_url=f"{willing.url}/v1")
        with measured(sidecar, ON_SOCKETS) as delta:
            flood(sidecar, willing, None)
    assert len(delta.values(MODEL) - {"_OTHER"}) == len(delta.values(ANSWERED) - {"_OTHER"}) == MAX_MODELS
    assert delta.sum(REQUESTS, outcome="completed") == ON_SOCKETS
    assert delta.sum(REQUESTS, **{MODEL: "_OTHER"}) == ON_SOCKETS - MAX_MODELS
    assert delta.sum("gen_ai_client_token_usage_sum") == 13 * ON_SOCKETS


def good(**fields: Any) -> Outcome:
    told: dict[str, Any] = {"status": 200, "end": End.COMPLETED} | fields
    return Outcome(
        "r", Endpoint.CHAT, "POST", "/v1/chat/completions", duration_s=0.1, attempts=1, operation="chat", **told
    )  # fmt: skip


@pytest.mark.parametrize("accepted", [False, True], ids=["404", "accepted"])
def test_ten_thousand(accepted: bool) -> None:
    figures = Figures()
    for number in range(IN_THE_ROOM):
        name = f"made-up-{number}"
        outcome = good(model=name, response_model=name)
        if not accepted:
            error = f"upstream_http_{400 + number % 200}"
            outcome = good(model=name, status=404, end=End.FAILED, error=error)
        figures.record(outcome)
    metrics = parse(exposition(figures, "1", {}))
    assert metrics.sum(REQUESTS) == IN_THE_ROOM
    assert len(metrics.values(MODEL)) == (MAX_MODELS + 1 if accepted else 1)
    assert len(metrics.values(ANSWERED)) == (MAX_MODELS + 1 if accepted else 0)
    assert len(metrics.values("error_type")) == (0 if accepted else MAX_ERROR_TYPES + 1)
    if not accepted:
        rest = IN_THE_ROOM * (200 - MAX_ERROR_TYPES) / 200
        assert metrics.sum(REQUESTS, error_type="_OTHER") == rest


def test_names_that_no_label_should_hold() -> None:
    figures = Figures()
    long = "m" * (MAX_MODEL_LENGTH + 1)
    for name in (long, "\udcff", ""):
        figures.record(good(model=name, response_model=name or "m"))
        figures.record(good(model=name, response_model="m", model_configured=True))
    metrics = parse(exposition(figures, "1", {}))
    metrics_text = exposition(figures, "1", {}).encode()
    assert long.encode() not in metrics_text
    assert metrics.values(MODEL) == {"_OTHER", "?"}
    assert metrics.values(ANSWERED) == {"_OTHER", "?", "m"}
    assert metrics.sum(REQUESTS, **{MODEL: None}) == 2
