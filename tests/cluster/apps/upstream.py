"""An upstream that takes any key and writes down which one it saw: OpenAI's chat, plain and streamed, and models.

Enters: HTTP on port 8080. Leaves: answers in OpenAI's shape that name the model; under /ledger?after=N what came
since entry N, a JSON line each (number, time, path, model, key, pod). Knows nothing of a sidecar.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

WORDS = ("one", " two", " three")
USAGE = {"prompt_tokens": 1, "completion_tokens": len(WORDS), "total_tokens": 1 + len(WORDS)}


class Ledger:
    """What came, in the order of its arrival."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def enter(self, **entry: Any) -> None:
        with self._lock:
            self._entries.append({"number": len(self._entries) + 1, "at": time.time(), **entry})

    def after(self, number: int) -> str:
        return "".join(json.dumps(entry) + "\n" for entry in self._entries[number:])


LEDGER = Ledger()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/ledger":
            after = int(parse_qs(parts.query).get("after", ["0"])[0])
            self._answer(LEDGER.after(after).encode(), "application/x-ndjson")
        elif parts.path == "/v1/models":
            models = [{"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "openai"}]
            self._answer(json.dumps({"object": "list", "data": models}).encode())
        else:
            self._answer(b"{}", status=404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        LEDGER.enter(path=self.path, model=asked["model"], key=key, pod=self.client_address[0])
        if asked.get("stream"):
            self._stream(asked)
            return
        message = {"role": "assistant", "content": "".join(WORDS)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._answer(
            json.dumps({**_head(asked, "chat.completion"), "choices": [choice], "usage": USAGE}).encode()
        )

    def _stream(self, asked: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        head = _head(asked, "chat.completion.chunk")
        for word in WORDS:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            self._event(json.dumps({**head, "choices": [choice]}))
            time.sleep(0.01)  # a stream that takes its time, so that something can happen during it
        self._event(json.dumps({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        if (asked.get("stream_options") or {}).get("include_usage"):
            self._event(json.dumps({**head, "choices": [], "usage": USAGE}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    def _answer(self, body: bytes, media: str = "application/json", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", media)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """The ledger says it all."""


def _head(asked: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": asked["model"]}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(("0.0.0.0", 8080), Handler).serve_forever()
