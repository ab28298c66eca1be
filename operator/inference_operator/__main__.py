"""The operator's command line.

Enters: arguments. Leaves: an exit code. So far it only says its version: the commands come with the operator.
"""

from __future__ import annotations

import argparse
import sys

from inference_config import __version__


def main() -> None:
    """The script `inference-operator`."""
    parser = argparse.ArgumentParser(
        "inference-operator",
        description="The Kubernetes side of inference-sidecar. This version has no commands yet: "
        "they come with the operator.",
    )
    parser.add_argument("--version", action="version", version=f"inference-operator {__version__}")
    parser.parse_args()
    parser.print_help()
    sys.exit(2)


if __name__ == "__main__":
    main()
