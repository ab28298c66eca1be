"""The script that `helm test` runs in the cluster, against an API server of ours over TLS.

Tested: the pod that it asks for, with which token, as a dry run; that it succeeds with the sidecar and with nothing less,
tries again while refused, and says why it gave up. Left out: a real admission (tests/cluster).
"""

from __future__ import annotations

import http.server
import importlib.util
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme

from chart.release import CHART
from inference_operator import naming

Answer = tuple[int, dict[str, Any]]
WITH = {"spec": {"initContainers": [{"name": naming.CONTAINER}, {"name": "migrate"}], "containers": []}}
LATE = {"spec": {"initContainers": [{"name": "migrate"}, {"name": naming.CONTAINER}], "containers": []}}
WITHOUT = {"spec": {"containers": [{"name": "app"}]}}
REFUSED = {"kind": "Status", "message": "no InferenceConfig selects this pod"}


class Server:
    """Answers in turn, the last answer for ever; keeps what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.answers: list[Answer] = [(201, WITH)]
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.crt")
        (folder / "token").write_text("a-token")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append((self.path, self.headers["Authorization"], body))
                status, answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.close()


@pytest.fixture
def script(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as it is in the chart, in the environment that the chart gives it, and in a hurry."""
    spec = importlib.util.spec_from_file_location("injection", CHART / "files" / "injection.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ACCOUNT", tmp_path)
    monkeypatch.setattr(module, "PAUSE_SECS", 0)
    monkeypatch.setattr(module, "PATIENCE_SECS", 0.5)
    address, port = server.http.server_address[:2]
    environ = {"KUBERNETES_SERVICE_HOST": str(address), "KUBERNETES_SERVICE_PORT": str(port)}
    for name, value in {**environ, "NAMESPACE": "apps", "CONFIG": "trial", "IMAGE": "operator:1"}.items():
        monkeypatch.setenv(name, value)
    return module


def test_it_asks_for_a_pod_that_nobody_keeps(script: ModuleType, server: Server) -> None:
    assert script.main() == 0
    ((path, authorization, pod),) = server.asked
    assert path == "/api/v1/namespaces/apps/pods?dryRun=All"
    assert authorization == "Bearer a-token"
    assert pod["metadata"]["labels"] == {naming.INJECT_LABEL: "true"}
    assert pod["metadata"]["annotations"] == {naming.CONFIG_ANNOTATION: "trial"}
    (app,) = pod["spec"]["containers"]
    assert app["image"] == "operator:1"
    assert app["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((403, REFUSED), "403: no InferenceConfig selects this pod"),
        ((201, WITHOUT), "without a sidecar"),
        ((201, LATE), "without a sidecar"),
        ((502, {}), "502"),
    ],
)
def test_it_says_why_it_gave_up(
    script: ModuleType, server: Server, capsys: pytest.CaptureFixture[str], answer: Answer, told: str
) -> None:
    server.answers = [answer]
    assert script.main() == 1
    assert told in capsys.readouterr().out
    assert len(server.asked) > 1


def test_it_tries_again_as_a_controller_does(
    script: ModuleType, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [(500, REFUSED), (201, WITH)]
    assert script.main() == 0
    assert capsys.readouterr().out.splitlines()[-1] == "a pod in namespace apps gets the sidecar"


def test_an_api_server_that_is_not_there_is_told(
    script: ModuleType, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")  # which its certificate does not name
    assert script.main() == 1
    assert "cannot be asked" in capsys.readouterr().out
    assert server.asked == []
