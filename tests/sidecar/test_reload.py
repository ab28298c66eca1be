"""Reload: a changed config or key is live within 2 s, whole or not at all, and no request notices.

Covers: an editor's rename, a write in place, Kubernetes' ..data swap; a bad, empty or half-written config; keys that
reload by themselves; the server section; streams under way; keys turned under load.
Left out: what a config may hold (test_config_*).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness import answers
from harness.evidence import EVIDENCE
from harness.process import Sidecar, Start, chat_body
from harness.upstream import SCENARIO, ScriptedUpstream

LIVE_SECS = 2.0


def by_rename(path: Path, text: str) -> None:
    aside = path.with_name(".new")
    aside.write_text(text)
    aside.rename(path)


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def becomes(true: Callable[[], Any], what: str) -> None:
    """Waits for something that only asking tells; at most the time that the law allows, and a little."""
    deadline = time.monotonic() + LIVE_SECS + 0.5
    while not true():
        assert time.monotonic() < deadline, f"not within {LIVE_SECS} s: {what}"
        time.sleep(0.02)


def status(sidecar: Sidecar) -> dict[str, Any]:
    return dict(sidecar.admin("/status").json)


def changed(sidecar: Sidecar, **inference: Any) -> str:
    config = json.loads(sidecar.config.read_text())
    config["inference"].update(inference)
    return json.dumps(config)


def model_up(sidecar: Sidecar, upstream: ScriptedUpstream) -> str:
    """The model that the upstream sees where the app names none."""
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    assert sidecar.chat(scenario, model=None).status == 200
    return str(upstream.only(scenario).json["model"])


def model_is(model: str, sidecar: Sidecar, upstream: ScriptedUpstream) -> bool:
    return model_up(sidecar, upstream) == model


@pytest.mark.parametrize("write", [by_rename, in_place])
def test_a_changed_file(spawn: Start, upstream: ScriptedUpstream, write: Callable[[Path, str], None]) -> None:
    sidecar = spawn({"inference": {"default_model": "first"}})
    before = status(sidecar)
    assert model_up(sidecar, upstream) == "first"
    for model in ("second", "third"):
        write(sidecar.config, changed(sidecar, default_model=model))
        becomes(partial(model_is, model, sidecar, upstream), f"default_model {model}")
    after = status(sidecar)
    assert after["generation"] == before["generation"] + 2
    assert after["digest"] != before["digest"]
    assert sidecar.health()["config"]["digest"] == after["digest"]


def test_a_mounted_secret_is_swapped(spawn: Start, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """As kubelet does it: files are links into ..data, which is a link that is replaced."""
    mount = tmp_path / "mount"
    mount.mkdir()

    def publish(name: str, model: str, key: str, revision: str) -> None:
        folder = mount / name
        folder.mkdir()
        inference = {
            "api_key_file": str(mount / "api-key"),
            "base_url": f"{upstream.url}/v1",
            "default_model": model,
            "health_check_interval_secs": 0,
        }
        config = {"inference": inference, "server": {"drain_quiet_secs": 0.05}}
        (folder / "config.v1.yaml").write_text(json.dumps(config))
        (folder / "api-key").write_text(f"{key}\n")
        (folder / "revision").write_text(revision)
        aside = mount / "..data_tmp"
        aside.symlink_to(name)
        aside.rename(mount / "..data")

    first, second = EVIDENCE.new_key(), EVIDENCE.new_key()
    publish("..2024_1", "first", first, "rev-1")
    for name in ("config.v1.yaml", "api-key", "revision"):
        (mount / name).symlink_to(f"..data/{name}")
    sidecar = spawn(config=mount, key=first)
    assert (model_up(sidecar, upstream), status(sidecar)["revision"]) == ("first", "rev-1")
    publish("..2024_2", "second", second, "rev-2")
    becomes(lambda: status(sidecar)["revision"] == "rev-2", "the new revision")
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    assert sidecar.chat(scenario, model=None).status == 200
    exchange = upstream.only(scenario)
    assert (exchange.json["model"], exchange.header("authorization")) == ("second", f"Bearer {second}")


BAD = {
    "unknown-key": '{"inference": {"provider": "openai", "api_key": "sk-x", "default_modell": "x"}}',
    "wrong-type": '{"inference": {"api_key": "sk-x", "http": {"timeout_secs": "soon"}}}',
    "no-yaml": "inference: [",
    "empty": "",
    "half": '{"inference": {"api_key": "sk',
    "no-mapping": "- a\n- b\n",
    "no-key": '{"inference": {"provider": "openai"}}',
}


def test_a_bad_config_is_refused_whole(spawn: Start, upstream: ScriptedUpstream) -> None:
    sidecar = spawn({"inference": {"default_model": "good"}})
    good = sidecar.config.read_text()
    before = status(sidecar)
    assert before["refused"] is None
    for name, text in BAD.items():
        by_rename(sidecar.config, text)
        becomes(lambda: status(sidecar)["refused"], f"refusal of {name}")
        now = status(sidecar)
        assert now["refused"]["reason"]
        assert {key: now[key] for key in ("digest", "generation")} == {
            key: before[key] for key in ("digest", "generation")
        }
        assert model_up(sidecar, upstream) == "good"
        assert sidecar.admin("/readyz").status == 200
        by_rename(sidecar.config, good)
        becomes(lambda: status(sidecar)["refused"] is None, "the good one again")
        before = status(sidecar)
    assert any(line.get("level") == "error" for line in sidecar.lines)


def test_a_file_that_vanishes_changes_nothing(spawn: Start, upstream: ScriptedUpstream) -> None:
    sidecar = spawn({"inference": {"default_model": "good"}})
    good = sidecar.config.read_text()
    sidecar.config.unlink()
    becomes(lambda: status(sidecar)["refused"], "refusal of what is not there")
    assert model_up(sidecar, upstream) == "good"
    sidecar.config.write_text(good)
    becomes(lambda: status(sidecar)["refused"] is None, "the good one again")


def authorization(sidecar: Sidecar, upstream: ScriptedUpstream) -> str | None:
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    assert sidecar.chat(scenario).status == 200
    return upstream.only(scenario).header("authorization")


def test_a_key_reloads_also_while_a_config_is_refused(spawn: Start, upstream: ScriptedUpstream) -> None:
    keys = [EVIDENCE.new_key() for _ in range(3)]
    settings = {"api_key": None, "api_key_file": "key"}
    sidecar = spawn({"inference": settings}, key=keys[0], files={"key": keys[0]})
    file = sidecar.config.parent / "key"
    assert authorization(sidecar, upstream) == f"Bearer {keys[0]}"
    by_rename(file, f"  {keys[1]}\r\n")
    becomes(lambda: authorization(sidecar, upstream) == f"Bearer {keys[1]}", "the second key")
    good = sidecar.config.read_text()
    by_rename(sidecar.config, BAD["unknown-key"])
    becomes(lambda: status(sidecar)["refused"], "refusal")
    by_rename(file, keys[2])
    becomes(lambda: authorization(sidecar, upstream) == f"Bearer {keys[2]}", "the third key")
    for bad in ("", "two words", "\x00"):
        by_rename(file, bad)
        time.sleep(0.6)  # there is nothing to wait for: the old key must still be in force
        assert authorization(sidecar, upstream) == f"Bearer {keys[2]}"
    by_rename(file, keys[2])
    by_rename(sidecar.config, good)
    becomes(lambda: status(sidecar)["refused"] is None, "the good one again")


def test_the_server_section_waits_for_a_restart(spawn: Start, upstream: ScriptedUpstream) -> None:
    sidecar = spawn({"inference": {"default_model": "first"}})
    config = json.loads(sidecar.config.read_text())
    config["server"]["max_json_bytes"] = 1024
    config["inference"]["default_model"] = "second"
    by_rename(sidecar.config, json.dumps(config))
    becomes(lambda: model_up(sidecar, upstream) == "second", "the rest applies")
    assert sidecar.chat(pad="x" * 2000).status == 200
    assert "server.max_json_bytes" in status(sidecar)["waiting_for_restart"]


def test_a_stream_ends_on_what_it_began_with(spawn: Start, upstream: ScriptedUpstream) -> None:
    """The upstream itself is replaced while a stream is open."""
    sidecar = spawn()
    events = answers.chat_events()
    gate = upstream.gate()
    steps: list[Any] = [
        answers.sse_head(),
        answers.chunk(events[0]),
        gate,
        answers.chunk(b"".join(events[1:])),
        answers.END,
    ]
    scenario = upstream.plan(steps)
    with ScriptedUpstream(answers.typical) as other, sidecar.connect() as client:
        client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
        client.head()
        client.until(events[0])
        by_rename(sidecar.config, changed(sidecar, base_url=f"{other.url}/v1"))
        becomes(lambda: sidecar.chat().status == 200 and other.exchanges, "the other upstream")
        gate.open()
        assert client.until(answers.DONE) == b"".join(events[1:])
        assert client.piece() is None
        upstream.closing(upstream.only(scenario))


def test_keys_turn_under_load_without_a_failed_request(spawn: Start, upstream: ScriptedUpstream) -> None:
    """Eight apps, plain and streaming, while the key turns four times."""
    keys = [EVIDENCE.new_key() for _ in range(5)]
    settings = {"api_key": None, "api_key_file": "key"}
    sidecar = spawn({"inference": settings}, key=keys[0], files={"key": keys[0]})
    file = sidecar.config.parent / "key"
    seen = len(upstream.exchanges)
    over = threading.Event()

    def work(number: int) -> tuple[int, int]:
        done = good = 0
        with sidecar.connect() as client:
            while not over.is_set():
                client.request("POST", "/v1/chat/completions", chat_body(stream=number % 2 == 0))
                answer = client.answer()
                done += 1
                good += answer.status == 200 and answer.ended == "whole" and b"error" not in answer.body
        return done, good

    def used(key: str) -> bool:
        return any(
            exchange.header("authorization") == f"Bearer {key}" for exchange in upstream.exchanges[seen:]
        )

    with sidecar.figures(None) as delta, ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(work, number) for number in range(8)]
        try:
            for key in keys[1:]:
                by_rename(file, key)
                becomes(partial(used, key), "the next key in use")
        finally:
            over.set()
        results = [worker.result() for worker in workers]
    done, good = sum(one for one, _ in results), sum(two for _, two in results)
    print(f"{done} requests while the key turned {len(keys) - 1} times")
    assert done == good > 50
    assert (delta["requests.total"], delta["errors.total"]) == (done, 0)
    allowed = {f"Bearer {key}" for key in keys}
    assert {exchange.header("authorization") for exchange in upstream.exchanges[seen:]} <= allowed


def test_a_config_by_name_of_the_environment(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Without -c: config/{RUN_ENV}.yaml, with the key from the environment."""
    key = EVIDENCE.new_key()
    (tmp_path / "config").mkdir()
    inference = {"base_url": f"{upstream.url}/v1", "default_model": "by-env", "health_check_interval_secs": 0}
    (tmp_path / "config" / "staging.yaml").write_text(json.dumps({"inference": inference}))
    environ = {
        "RUN_ENV": "staging",
        "INFERENCE_INFERENCE_API_KEY": key,
        "INFERENCE_SERVER_DRAIN_QUIET_SECS": "0",
    }
    sidecar = Sidecar(None, key, environ=environ, cwd=tmp_path)
    try:
        assert model_up(sidecar, upstream) == "by-env"
        assert authorization(sidecar, upstream) == f"Bearer {key}"
    finally:
        sidecar.terminate()
        assert sidecar.wait() == 0
    assert not sidecar.faults()
    assert os.path.lexists(tmp_path / "config")
