"""Names on which both sides of the contract rely: ports, paths, file names, labels and annotations.

Holds constants only. A value here is public: pods in a cluster were made with it.
"""

from __future__ import annotations

from typing import Final

API_PORT: Final = 3000
ADMIN_PORT: Final = 3001

GROUP: Final = "inferencesidecar.dev"
MOUNT_PATH: Final = "/etc/inference-sidecar"
KEY_FILE: Final = "api-key"
REVISION_FILE: Final = "revision"

SCHEMA_VERSIONS: Final = (1,)
"""Schema versions that this code can read, newest first. The rendered Secret holds a file for each."""


def config_file(schema_version: int) -> str:
    """Name of the config file of one schema version inside `MOUNT_PATH`, for example `config.v1.yaml`."""
    return f"config.v{schema_version}.yaml"
