"""The command line: run the sidecar, check its configuration, say its version.

Enters: arguments and the environment. Leaves: an exit code: 0, 2 for a configuration that cannot be used, or
what `serve` says. Must not know how anything is served.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from inference_config import __version__
from inference_config.problems import ConfigError

FLAGS = {
    "server.host": ("--host", "HOST", "address of the API; absent: both loopbacks"),
    "server.port": ("--port", "PORT", "port of the API; 0: any free one"),
    "server.admin_host": ("--admin-host", "HOST", "address of the admin port"),
    "server.admin_port": ("--admin-port", "PORT", "admin port; 0: any free one"),
}


def main() -> None:
    """The script `inference-sidecar`."""
    # Nothing here is a plugin of pydantic's, which else reads what every installed package says of itself to find one.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.exit(command(sys.argv[1:], os.environ))


def command(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Does what the arguments say, and returns the exit code."""
    options = vars(_parser().parse_args(arguments))
    flags = {path: options[path] for path in FLAGS if options[path] is not None}
    act = _check if options["command"] == "check" else _run
    try:
        return act(options["config"], environ, flags)
    except ConfigError as error:
        sys.stderr.writelines(f"{problem}\n" for problem in error.problems)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "inference-sidecar",
        description="Serves the OpenAI API on the loopback and forwards it to the configured upstream.",
    )
    parser.add_argument("--version", action="version", version=f"inference-sidecar {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "serve until SIGTERM"),
        ("check", "print the effective configuration, and where each value came from; exit 0 or 2"),
    ):
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument(
            "-c",
            "--config",
            type=Path,
            metavar="FILE",
            help="configuration, or a directory with one; absent: config/{RUN_ENV}.yaml, if it is there",
        )
        for path, (flag, value, meaning) in FLAGS.items():
            one.add_argument(flag, dest=path, metavar=value, help=meaning)
    return parser


def _run(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> int:
    from .serve import run  # noqa: PLC0415 - neither check nor --version waits for a server to be imported

    return run(path, environ, flags)


def _check(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> int:
    from .check import check  # noqa: PLC0415 - and --version not for what reads a configuration

    return check(path, environ, flags)


if __name__ == "__main__":
    main()
