"""The app's connection as the door needs it: is it still there, tell me when it goes, cut it.

`serve` implements it and puts it into ASGI's scope; a task that waits on `receive` for the same news would cost
every request a task, and would not hear it while an upload is held back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from ..records import Headers

EXTENSION: Final = "inference_sidecar.line"


class Line:
    """One client connection; requests on it come one after the other."""

    loop: asyncio.AbstractEventLoop
    """The loop that it lives on."""
    task: asyncio.Task[None] | None
    """What answers its requests."""
    gone: bool
    """The app has closed it."""

    def watch(self, callback: Callable[[], Any] | None) -> None:
        """Call `callback` once when the app closes it; None forgets the last one."""
        raise NotImplementedError

    def close(self) -> None:
        """Close it after what was sent so far, whatever was promised."""
        raise NotImplementedError

    def take(self) -> bytes | None:
        """The body of the request that is being answered, where all of it is here; it is not received again then. None
        where it is to be received."""
        raise NotImplementedError

    def answer(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a whole answer, of which nothing was sent, at once. False: there is no room, nothing was sent."""
        raise NotImplementedError

    def begin(self, status: int, headers: Headers) -> bool:
        """Begin an answer, of which nothing was sent; its head leaves with the first of its body. False: there is no room,
        nothing was begun."""
        raise NotImplementedError

    def pour(self, piece: bytes) -> bool:
        """Send a piece of an answer's body whose head was sent, at once. False: there is no room, nothing was sent."""
        raise NotImplementedError

    def finish(self) -> bool:
        """End an answer whose head was sent, at once. False: there is no room, nothing was sent."""
        raise NotImplementedError
