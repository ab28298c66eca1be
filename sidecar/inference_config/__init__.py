"""The contract: the schema of the configuration that the operator writes and the sidecar reads.

Enters: YAML text, environment variables, flags. Leaves: one frozen, validated `Config`.
Imports pydantic and PyYAML only; knows nothing of either side that uses it.
"""

__version__ = "0.1.0"
