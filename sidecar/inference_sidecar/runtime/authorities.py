"""Whom TLS trusts where the configuration names nobody: the system's authorities, or else certifi's.

Enters: a context that has the system's. Leaves: the same, with certifi's where the system has none.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import certifi


def with_some(context: ssl.SSLContext) -> None:
    """Some images and some Pythons come without any; the system's own are taken wherever there are some."""
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or (paths.capath and any(Path(paths.capath).iterdir()))):
        context.load_verify_locations(certifi.where())
