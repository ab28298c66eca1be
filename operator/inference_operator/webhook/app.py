"""The webhook's app: /inject, behind TLS.

Enters: HTTP. Leaves: an answer to a review, or a status that says why there is none. A body is bounded before it
is read, the number of reviews at work as well, and the time of each. Must not decide about pods.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..telemetry import LOGGER
from .injector import Injector
from .review import NotAReview, parse

MAX_BODY: Final = 8 * 1024 * 1024
AT_ONCE: Final = 16
"""Reviews that are read and answered at once: with `MAX_BODY` the bound of memory. The others wait."""
REVIEW_SECS: Final = 4.5
"""From a review's head to its answer. The API server gives up after 5 s."""


class Door:
    """Whether it is open: what app, server and health have to say to each other."""

    def __init__(self) -> None:
        self.serving = False
        self.draining = False

    def why_not_ready(self) -> str | None:
        """Why new calls are not welcome, None where they are."""
        if self.draining:
            return "draining"
        return None if self.serving else "no certificate yet"


def inject_app(injector: Injector, door: Door) -> Starlette:
    """POST /inject."""
    places = asyncio.Semaphore(AT_ONCE)

    async def endpoint(request: Request) -> Response:
        try:
            async with asyncio.timeout(REVIEW_SECS), places:
                response = await _answered(request, injector)
        except TimeoutError:
            response = _refused("the injector had no time for this review", 503)
        except ClientDisconnect:
            response = Response(status_code=400)
        if door.draining:
            # The API server keeps its connections: so it takes the next call to an injector that stays.
            response.headers["connection"] = "close"
        return response

    return Starlette(routes=[Route("/inject", endpoint, methods=["POST"])])


async def _answered(request: Request, injector: Injector) -> Response:
    body = await _body(request)
    if body is None:
        return _refused("the body is larger than an admission can be", 413)
    try:
        review = parse(body)
    except NotAReview as error:
        return _refused(str(error), 400)
    return Response(json.dumps(await injector.answer(review)), media_type="application/json")


async def _body(request: Request) -> bytes | None:
    """The whole body, None if it is too large."""
    if _length(request.headers.get("content-length", "")) > MAX_BODY:
        return None
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            return None
    return bytes(body)


def _length(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _refused(message: str, status: int) -> Response:
    LOGGER.warning("no admission", extra={"fields": {"status": status, "why": message}})
    # What is left of the body is not wanted any more.
    return PlainTextResponse(f"{message}\n", status, headers={"connection": "close"})
