"""A client that speaks HTTP/1.1 byte by byte and says truthfully how an answer ended.

Enters: requests, also crooked ones. Leaves: `Answer`s; every byte that came is kept as evidence.
Must not retry, follow, decode or repair anything.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from harness.evidence import EVIDENCE

How = Literal["whole", "closed", "cut", "reset"]
"""whole: as framed; closed: a body without framing, ended by FIN; cut: FIN too early; reset: RST."""

WAIT_SECS = 15.0


class CutError(Exception):
    """The connection ended where more had to come."""

    def __init__(self, how: How) -> None:
        super().__init__(how)
        self.how: How = how


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    ended: How = "whole"
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    """Chunks of a chunked body with the time at which each was read."""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, which must be whole in OpenAI's shape."""
        assert (self.header("content-type") or "").startswith("application/json"), self
        found = self.json["error"]
        assert set(found) >= {"message", "type", "param", "code"}, found
        assert isinstance(found["message"], str)
        assert found["message"]
        return dict(found)

    @property
    def events(self) -> list[tuple[str, str]]:
        """(name, data) of each whole event of the body, by a reader of the test's own."""
        return read_events(self.body)

    @property
    def data(self) -> list[Any]:
        """The data of each event, read as JSON but for `[DONE]`."""
        return [data if data == "[DONE]" else json.loads(data) for _, data in self.events if data]


def read_events(body: bytes) -> list[tuple[str, str]]:
    """A plain reader of event streams: whole events only."""
    found = []
    blocks = re.split(r"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n", body.decode("utf-8-sig"))
    for block in blocks:
        name, data = "", []
        for line in re.split(r"\r\n|\n|\r", block):
            key, _, value = line.partition(":")
            if key == "event":
                name = value.removeprefix(" ")
            elif key == "data":
                data.append(value.removeprefix(" "))
        if data or name:
            found.append((name, "\n".join(data)))
    return found


class Client:
    """One connection."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=WAIT_SECS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._seen = EVIDENCE.channel(f"connection to {self._name}")
        self._buffer = bytearray()
        self._framing: tuple[str, int] = ("none", 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def reset(self) -> float:
        """Leave with RST; when that was."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return self.leave()

    def leave(self) -> float:
        """Leave with FIN; when that was."""
        left_at = time.monotonic()
        self.socket.close()
        return left_at

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_aside(self, data: bytes) -> threading.Thread:
        """Send a large body while the answer may already come; a peer that stops reading is no fault."""

        def work() -> None:
            try:
                self.socket.sendall(data)
            except OSError:
                return

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def head_of(self, method: str, target: str, headers: Mapping[str, str] | None = None) -> bytes:
        lines = {"host": self._name, **(headers or {})}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("latin-1")

    def request(
        self, method: str, target: str, body: bytes | Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """`body`: bytes as they are, anything else as JSON."""
        lines = dict(headers or {})
        payload = b""
        if body is not None:
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
            if not isinstance(body, bytes):
                lines.setdefault("content-type", "application/json")
            lines.setdefault("content-length", str(len(payload)))
        self.send(self.head_of(method, target, lines) + payload)

    def answer(self, method: str = "POST") -> Answer:
        """The whole answer, however it ends."""
        found = self.head(method)
        try:
            while (piece := self.piece()) is not None:
                found.pieces.append((time.monotonic(), piece))
        except CutError as cut:
            found.ended = cut.how
        else:
            if self._framing[0] == "close":
                found.ended = "closed"
        found.body = b"".join(piece for _, piece in found.pieces)
        return found

    def head(self, method: str = "POST", *, informational: bool = False) -> Answer:
        """The next head; 1xx are skipped unless asked for."""
        while True:
            lines = bytes(self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers = []
            for line in lines[1:]:
                name, _, value = line.partition(":")
                if name:
                    headers.append((name.lower(), value.strip()))
            if status >= 200 or informational:
                break
        fields = dict(headers)
        if method == "HEAD" or status in (204, 304):
            self._framing = ("length", 0)
        elif "chunked" in fields.get("transfer-encoding", ""):
            self._framing = ("chunked", 0)
        elif "content-length" in fields:
            self._framing = ("length", int(fields["content-length"]))
        else:
            self._framing = ("close", 0)
        return Answer(status, headers)

    def piece(self) -> bytes | None:
        """The next chunk (or what came of a plain body), None at the end; `CutError` where it was cut."""
        kind, left = self._framing
        if kind == "chunked":
            size = int(bytes(self._until(b"\r\n"))[:-2].split(b";")[0], 16)
            part = self._exactly(size + 2)[:-2]
            if size == 0:
                self._framing = ("length", 0)
                return None
            return part
        if kind == "length":
            if left == 0:
                return None
            part = self._some(left)
            self._framing = ("length", left - len(part))
            return part
        try:
            return self._some(65536)
        except CutError as cut:
            if cut.how == "cut":
                return None
            raise

    def until(self, marker: bytes) -> bytes:
        """Body of a stream up to the chunk that brings the marker; the head must have been read."""
        body = bytearray()
        while marker not in body:
            piece = self.piece()
            assert piece is not None, f"the body ended before {marker!r}: {bytes(body)!r}"
            body += piece
        return bytes(body)

    def closed(self) -> bool:
        """Waits until the peer has closed; True where nothing more came."""
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _fill(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            raise CutError("reset") from None
        if not data:
            raise CutError("cut")
        self._seen.extend(data)
        self._buffer += data

    def _until(self, marker: bytes) -> bytes:
        while (end := self._buffer.find(marker)) < 0:
            self._fill()
        part = bytes(self._buffer[: end + len(marker)])
        del self._buffer[: len(part)]
        return part

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        part = bytes(self._buffer[:size])
        del self._buffer[:size]
        return part

    def _some(self, most: int) -> bytes:
        if not self._buffer:
            self._fill()
        return self._exactly(min(most, len(self._buffer)))


def call(
    port: int,
    method: str,
    target: str,
    body: bytes | Any = None,
    headers: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
) -> Answer:
    """One request on a connection of its own."""
    with Client(port, host) as client:
        client.request(method, target, body, headers)
        return client.answer(method)
