"""The app's connection as the door needs it: is it still there, tell me when it goes, cut it.

`serve` implements it and puts it into ASGI's scope; a task that waits on `receive` for the same news would cost
every request a task, and would not hear it while an upload is held back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

EXTENSION: Final = "inference_sidecar.line"


class Line(Protocol):
    """One client connection; requests on it come one after the other."""

    loop: asyncio.AbstractEventLoop
    """The loop that it lives on."""

    @property
    def gone(self) -> bool:
        """Whether the app has closed it."""

    def watch(self, callback: Callable[[], Any] | None) -> None:
        """Call `callback` once when the app closes it; None forgets the last one."""

    def close(self) -> None:
        """Close it after what was sent so far, whatever was promised."""

    def pour(self, piece: bytes) -> bool:
        """Send a piece of an answer's body whose head was sent, at once. False: there is no room, nothing was sent."""
