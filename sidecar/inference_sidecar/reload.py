"""Sees the configuration and the key change, swaps the runtime whole, keeps the last good one.

Enters: files, read again and again (contents, not inotify: Kubernetes swaps a symlink that inotify misses).
Leaves: a new `Upstream`, or a reason why there is none. Must not touch a request under way: it ends on
what it began with. A bad configuration changes nothing, but for the key, which reloads all the same.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from inference_config import codec
from inference_config.load import ConfigError, Loaded, load, read_key
from inference_config.names import REVISION_FILE
from inference_config.schema import Config

from .runtime import compile_runtime, target_of
from .telemetry import LOGGER
from .telemetry.logs import set_level
from .upstream import Upstream, Wire, wire_for

POLL_SECS: Final = 0.5
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_REVISION_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class Refused:
    """A configuration that was not taken. `at` is Unix time; `reason` is public."""

    revision: str | None
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Source:
    """Where a process takes its configuration from, the same at every reload."""

    path: Path | None
    environ: Mapping[str, str]
    flags: Mapping[str, object]

    def load(self) -> Loaded:
        """Read it all. Raises ConfigError."""
        return load(self.path, self.environ, self.flags)

    def watched(self) -> Path:
        """The file or folder that would be read now, whether it exists or not."""
        return (
            self.path or Path("config") / f"{self.environ.get('RUN_ENV', '').strip() or 'development'}.yaml"
        )

    def revision(self) -> str | None:
        """What the revision file beside the configuration says, None where there is none."""
        path = self.watched()
        folder = path if path.is_dir() else path.parent
        try:
            text = (folder / REVISION_FILE).read_text("ascii")[:MAX_REVISION_BYTES].strip()
        except (OSError, UnicodeDecodeError):
            return None
        return text or None


class Live:
    """What is in force, and the means to put something newer in its place."""

    def __init__(self, source: Source, loaded: Loaded) -> None:
        """Raises ConfigError where the key or the CA file cannot be used."""
        self.generation = 0
        self.loaded_at = 0.0
        self.refused: Refused | None = None
        self.waiting_for_restart: tuple[str, ...] = ()
        self.on_swap: Callable[[], None] = lambda: None
        self._refusals = 0
        self._retired: list[Wire] = []
        self._source = source
        self._server = loaded.config.server
        self._good = loaded.config
        self._seen = b""
        self.upstream = self._build(loaded.config, None)
        self._took(loaded.config)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECS)
            try:
                self.poll()
            except Exception:  # noqa: BLE001  the edge of a task that must outlive whatever a file system does
                LOGGER.exception("looking for a new configuration failed")

    def poll(self) -> None:
        """Look once, and take what is new and whole."""
        before = self._fingerprint(self._good)
        if before == self._seen:
            return
        self._seen = before
        revision = self._source.revision()
        try:
            config = self._source.load().config
            seen = self._fingerprint(config)
            upstream = self._build(config, self.upstream)
        except ConfigError as error:
            self._refuse(revision, error)
            return
        if self._fingerprint(self._good) != before or self._fingerprint(config) != seen:
            # It changed while it was read: half of one and half of another is neither. Next time.
            self._seen = b""
            if upstream.wire is not self.upstream.wire:
                upstream.wire.retire()
            return
        self._seen = seen
        if config == self._good and _same(upstream, self.upstream):
            self.refused = None
            return
        self._swap(upstream)
        self._took(config)

    def reloads(self) -> dict[str, int]:
        """How many configurations were found after the start, by what became of them."""
        return {"applied": self.generation - 1, "refused": self._refusals}

    def connections(self) -> dict[str, int]:
        """Connections that are open upstream, by their state; those of upstreams that are being left, too."""
        usages = [wire.usage() for wire in (self.upstream.wire, *self._retired)]
        return {"active": sum(active for active, _ in usages), "idle": sum(idle for _, idle in usages)}

    def _took(self, config: Config) -> None:
        self._good = config
        self.refused = None
        self.generation += 1
        self.loaded_at = time.time()
        self.waiting_for_restart = _changed(self._server, config.server)
        set_level(config.logging.level)
        if self.generation > 1:
            fields = {
                "digest": self.upstream.runtime.digest,
                "revision": self.upstream.runtime.revision,
                "generation": self.generation,
                "waiting_for_restart": list(self.waiting_for_restart) or None,
            }
            LOGGER.info("configuration loaded", extra={"fields": fields})
            self.on_swap()

    def _refuse(self, revision: str | None, error: ConfigError) -> None:
        reason = "; ".join(str(problem) for problem in error.problems)
        self.refused = Refused(revision, reason, time.time())
        self._refusals += 1
        LOGGER.error("configuration refused", extra={"fields": {"reason": reason, "revision": revision}})
        try:
            upstream = self._build(self._good, self.upstream)
        except ConfigError:
            return
        if _secret(upstream.runtime.key) != _secret(self.upstream.runtime.key):
            # The last good configuration goes on under its own revision, with the key of now.
            runtime = dataclasses.replace(upstream.runtime, revision=self.upstream.runtime.revision)
            self._swap(Upstream(runtime, upstream.wire))
            LOGGER.info("key loaded", extra={"fields": {"generation": self.generation}})

    def _swap(self, upstream: Upstream) -> None:
        before, self.upstream = self.upstream, upstream
        if before.wire is not upstream.wire:
            before.wire.retire()
            self._retired = [wire for wire in (*self._retired, before.wire) if not wire.closed]

    def _build(self, config: Config, current: Upstream | None) -> Upstream:
        key = config.inference.api_key
        if config.inference.api_key_file is not None:
            key = read_key(Path(config.inference.api_key_file))
        # What needs a restart stays as it was at the start, whatever the file says now.
        effective = config.model_copy(update={"server": self._server})
        runtime = compile_runtime(effective, key, self._source.revision())
        digest = codec.digest(config)
        if runtime.revision == runtime.digest:
            runtime = dataclasses.replace(runtime, revision=digest)
        runtime = dataclasses.replace(runtime, digest=digest)
        wire = wire_for(
            effective,
            target_of(config.inference),
            self._source.environ,
            current.wire if current else None,
        )
        return Upstream(runtime, wire)

    def _fingerprint(self, config: Config) -> bytes:
        """A digest of all that is read: configuration, revision, key, certificate authorities."""
        path = self._source.watched()
        try:
            paths = sorted(path.iterdir()) if path.is_dir() else [path, path.parent / REVISION_FILE]
        except OSError:
            paths = [path]
        named = (config.inference.api_key_file, config.inference.http.ca_file)
        summary = hashlib.sha256()
        for one in [*paths, *(Path(name) for name in named if name is not None)]:
            summary.update(_content(one))
        return summary.digest()


def _content(path: Path) -> bytes:
    """A digest of a file with its name; of one that is not there, of its name alone."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(bytes(path) + b"\0" + file.read(MAX_FILE_BYTES)).digest()
    except OSError:
        return hashlib.sha256(bytes(path)).digest()


def _same(one: Upstream, other: Upstream) -> bool:
    """Whether a file was touched, or a reading repeated, without anything having changed."""
    return (
        one.wire is other.wire
        and one.runtime.revision == other.runtime.revision
        and _secret(one.runtime.key) == _secret(other.runtime.key)
    )


def _changed(before: object, after: object) -> tuple[str, ...]:
    names = type(before).model_fields  # type: ignore[attr-defined]
    return tuple(f"server.{name}" for name in names if getattr(before, name) != getattr(after, name))


def _secret(key: SecretStr | None) -> str | None:
    return None if key is None else key.get_secret_value()
