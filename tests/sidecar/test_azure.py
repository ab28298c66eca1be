"""Azure OpenAI: its URLs, its header, its api-version, as the spec configures it and as its SDKs call it.

Covers: the spec's deployment base_url under provider openai; provider azure with and without api_version; the
/openai/v1 form; Azure's own paths; an Entra token from a file; Azure's request ids and first chunk.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from harness import answers
from harness.evidence import EVIDENCE
from harness.process import Start, chat_body
from harness.upstream import Exchange, ScriptedUpstream

DEPLOYMENT = "/openai/deployments/dep"
GOOD = [answers.json_answer(answers.completion(), "apim-request-id: apim-1", "x-ms-region: West")]


def place(exchange: Exchange) -> tuple[str, list[str]]:
    """Path and api-versions of a request as it arrived."""
    parts = urlsplit(exchange.target)
    return parts.path, parse_qs(parts.query).get("api-version", [])


def test_the_specs_deployment_url(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start(base_url=upstream.url + DEPLOYMENT)
    scenario = upstream.plan(GOOD)
    answer = sidecar.chat(scenario, model=None)
    assert (answer.status, answer.header("apim-request-id")) == (200, "apim-1")
    exchange = upstream.only(scenario)
    path, versions = place(exchange)
    assert path == f"{DEPLOYMENT}/chat/completions"
    assert len(versions) == 1
    assert (exchange.header("api-key"), exchange.header("authorization")) == (sidecar.key, None)


def test_azures_own_path_must_name_that_deployment(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start(base_url=upstream.url + DEPLOYMENT)
    scenario = upstream.plan(GOOD)
    own = f"{DEPLOYMENT}/chat/completions?api-version=2025-01-01"
    assert sidecar.call("POST", own, chat_body(), None, scenario).status == 200
    assert place(upstream.only(scenario)) == (f"{DEPLOYMENT}/chat/completions", ["2025-01-01"])
    other = sidecar.call("POST", "/openai/deployments/else/chat/completions", chat_body(), None, scenario)
    assert other.status == 404
    assert other.error["message"]
    assert len(upstream.of(scenario)) == 1


def test_provider_azure(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"inference": {"provider": "azure", "api_version": "2024-06-01"}}, base_url=upstream.url)
    scenario = upstream.plan(GOOD)
    assert sidecar.chat(scenario, model="my dep").status == 200
    exchange = upstream.only(scenario)
    assert place(exchange) == ("/openai/deployments/my%20dep/chat/completions", ["2024-06-01"])
    assert exchange.header("api-key") == sidecar.key


def test_the_v1_form(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"inference": {"provider": "azure"}}, base_url=f"{upstream.url}/openai/v1")
    scenario = upstream.plan(GOOD)
    assert sidecar.chat(scenario).status == 200
    assert sidecar.call("POST", "/openai/v1/chat/completions", chat_body(), None, scenario).status == 200
    for exchange in upstream.of(scenario):
        assert place(exchange) == ("/openai/v1/chat/completions", [])
        assert exchange.header("api-key") == sidecar.key


def test_an_entra_token_from_a_file(spawn: Start, upstream: ScriptedUpstream) -> None:
    token = EVIDENCE.new_key()
    settings = {"provider": "azure", "auth": "bearer", "api_key": None, "api_key_file": "token"}
    sidecar = spawn(
        {"inference": settings}, base_url=upstream.url, key=token, files={"token": f"  {token}\n"}
    )
    scenario = upstream.plan(GOOD)
    assert sidecar.chat(scenario).status == 200
    exchange = upstream.only(scenario)
    assert (exchange.header("authorization"), exchange.header("api-key")) == (f"Bearer {token}", None)


def test_azures_stream(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start(base_url=upstream.url + DEPLOYMENT)
    events = [answers.azure_first_chunk(), *answers.chat_events(usage=True)]
    scenario = upstream.plan(answers.sse(events))
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario, stream=True)
    assert answer.body == b"".join(event for event in events if event != answers.usage_event())
    assert (delta["streams.completed"], delta["tokens.total"]) == (1, 13)


def test_azure_paths_only_where_the_upstream_is_azure(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start()
    for path in ("/openai/v1/chat/completions", f"{DEPLOYMENT}/chat/completions"):
        scenario = upstream.plan(GOOD)
        assert sidecar.call("POST", path, chat_body(), None, scenario).status == 404
        assert upstream.of(scenario) == []
