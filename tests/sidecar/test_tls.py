"""HTTPS upstream: trust as configured, and nothing said to whom is not trusted.

Covers: a CA file; an unknown CA and a wrong name, plain and streaming; streams and faults over TLS; an early answer
to an upload over TLS.
Left out: TLS through a proxy and the transport's own faults (test_transport*).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import pytest
import trustme

from harness import answers
from harness.process import Sidecar, Start
from harness.upstream import CLOSE, DEAF, EARLY, HANG, RESET, SCENARIO, ScriptedUpstream


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context(authority: trustme.CA, name: str) -> SSLContext:
    made = SSLContext(PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(made)
    return made


@pytest.fixture(scope="module")
def secure(authority: trustme.CA) -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(answers.typical, tls=context(authority, "127.0.0.1")) as running:
        yield running


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def trusting(start: Start, secure: ScriptedUpstream, ca_file: Path) -> Sidecar:
    return start({"inference": {"http": {"ca_file": str(ca_file)}}}, base_url=f"{secure.url}/v1")


def test_a_ca_file(trusting: Sidecar, secure: ScriptedUpstream) -> None:
    assert trusting.chat().json["choices"][0]["message"]["content"] == "Paris."
    answer = trusting.chat(stream=True)
    assert (answer.status, answer.ended) == (200, "whole")
    assert answer.body.endswith(answers.DONE)
    assert secure.exchanges[-1].header("authorization") == f"Bearer {trusting.key}"
    assert secure.exchanges[-1].connection is secure.exchanges[-2].connection


@pytest.mark.parametrize("stream", [None, True], ids=["plain", "streaming"])
def test_an_unknown_authority(start: Start, secure: ScriptedUpstream, stream: bool | None) -> None:
    sidecar = start(base_url=f"{secure.url}/v1")
    seen = len(secure.exchanges)
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(stream=stream)
    assert (answer.status, answer.error["code"]) == (500, "upstream_tls_error")
    assert delta["errors.by_type.upstream_tls_error"] == 1
    assert len(secure.exchanges) == seen


def test_a_wrong_name(start: Start, authority: trustme.CA, ca_file: Path) -> None:
    with ScriptedUpstream(answers.typical, tls=context(authority, "elsewhere.invalid")) as other:
        sidecar = start({"inference": {"http": {"ca_file": str(ca_file)}}}, base_url=f"{other.url}/v1")
        answer = sidecar.chat()
        assert (answer.status, answer.error["code"]) == (500, "upstream_tls_error")
        assert other.exchanges == []


def test_plain_text_where_tls_was_expected(start: Start) -> None:
    with ScriptedUpstream(answers.typical) as plain:
        plain.on_accept = [answers.error(400, "no TLS here", "invalid_request_error", None), HANG]
        sidecar = start(base_url=f"{plain.url.replace('http:', 'https:')}/v1")
        answer = sidecar.chat()
    assert (answer.status, answer.error["code"]) == (500, "upstream_tls_error")


@pytest.mark.parametrize("end", [CLOSE, RESET], ids=["close", "reset"])
def test_a_cut_stream(trusting: Sidecar, secure: ScriptedUpstream, end: object) -> None:
    events = answers.chat_events()[:2]
    gate = secure.gate()
    script = [answers.sse_head(), *(answers.chunk(each) for each in events), gate, end]
    scenario = secure.plan(script)  # type: ignore[arg-type]  # a table of mixed steps
    with trusting.connect() as client:
        body = {"model": "gpt-4", "messages": [{"role": "user", "content": "x"}], "stream": True}
        client.request("POST", "/v1/chat/completions", body, {SCENARIO: scenario})
        client.head()
        client.until(events[1])
        gate.open()
        assert b'"upstream_disconnected"' in client.until(b"data: ")
        assert client.piece() is None


def test_an_early_answer_to_an_upload(trusting: Sidecar, secure: ScriptedUpstream) -> None:
    refusal = answers.error(413, "no", "invalid_request_error", "early", "connection: close")
    scenario = secure.plan([EARLY, DEAF, refusal, CLOSE])
    size = 20_000_000
    with trusting.connect() as client:
        headers = {SCENARIO: scenario, "content-type": "a/b", "content-length": str(size)}
        client.send(client.head_of("POST", "/v1/files", headers))
        sender = client.send_aside(b"x" * size)
        answer = client.answer()
    sender.join(5)
    assert (answer.status, answer.error["code"]) == (413, "early")
