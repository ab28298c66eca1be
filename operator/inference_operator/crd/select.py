"""Which config a pod's labels lead to. The older one wins, by name where two are of one age."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .spec import InferenceConfig


def oldest_first(configs: Iterable[InferenceConfig]) -> tuple[InferenceConfig, ...]:
    """Configs of one namespace in the order in which they win."""
    return tuple(sorted(configs, key=lambda one: (one.metadata.creation_timestamp, one.name)))


def selected(labels: Mapping[str, str], configs: Iterable[InferenceConfig]) -> tuple[InferenceConfig, ...]:
    """Those whose selector matches `labels`: the first is in force, the others are in conflict with it."""
    return tuple(
        config
        for config in oldest_first(configs)
        if config.spec.selector is not None and config.spec.selector.matches(labels)
    )
