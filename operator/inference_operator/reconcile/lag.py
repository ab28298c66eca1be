"""What the API server listed and no watch has told: a watch that stands still looks like one with nothing to tell.

Enters: lists, taken from time to time, and what the watches tell meanwhile. Leaves: what was owed for a whole round.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Lag:
    """Objects of one kind, by uid, whose listed version the watch has not told yet."""

    def __init__(self) -> None:
        self._owed: dict[str, str] = {}

    def told(self, uid: str, version: str) -> None:
        """A watch told of this version: of an object that is there, or that is gone."""
        owed = self._owed.get(uid)
        if owed is not None and not is_older(version, owed):
            del self._owed[uid]

    def listed(self, there: Mapping[str, str], known: Mapping[str, str]) -> list[str]:
        """Takes in the versions that are there, and those that the watch had told by then. Returns the objects that
        were owed at the list before already, and still are."""
        late = [uid for uid in self._owed if uid in there]
        owed = {
            uid: version
            for uid, version in there.items()
            if uid not in known or is_older(known[uid], version)
        }
        self._owed = {uid: self._owed.get(uid, version) for uid, version in owed.items()} | {
            uid: self._owed[uid] for uid in late
        }
        return late


def is_older(one: str, than: str) -> bool:
    """Whether a resourceVersion is older than another of the same kind of object. Kubernetes has them be numbers that
    grow (KEP-5504); what is none cannot be compared, and is taken for newer."""
    return one.isdecimal() and than.isdecimal() and int(one) < int(than)


def version_of(obj: Mapping[str, Any]) -> str:
    """An object's resourceVersion, empty where it has none."""
    return str(obj["metadata"].get("resourceVersion", ""))
