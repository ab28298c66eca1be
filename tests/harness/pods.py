"""InferenceConfigs and pods for the operator's tests: plain ones to start from, any valid one (hypothesis), injected ones.

Enters: what a test wants different. Leaves: plain objects as the API server has them; parts of a pod.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from inference_operator import crd
from inference_operator.inject import Injected, inject
from inference_operator.naming import API_VERSION, CONTAINER, INJECT_LABEL, KIND


def config_object(name: str = "team", **spec: Any) -> dict[str, Any]:
    """An InferenceConfig that selects `app: web`. `spec`: parts of it that are different; None leaves one out."""
    given: dict[str, Any] = {
        "inference": {"apiKeySecretRef": {"name": "openai", "key": "api-key"}, "defaultModel": "gpt-4o"},
        "selector": {"matchLabels": {"app": "web"}},
        **spec,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-of-{name}",
            "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": {key: value for key, value in given.items() if value is not None},
    }


def config(name: str = "team", *, created: str = "2026-01-02T03:04:05Z", **spec: Any) -> crd.InferenceConfig:
    """The same, parsed."""
    made = config_object(name, **spec)
    made["metadata"]["creationTimestamp"] = created
    return crd.parse(made)


def pod_object(
    *,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    app: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A pod of Deployment web that asks for a sidecar. `app`: more of its one container; `spec`: of its spec."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "web-5d8c9-",
            "labels": {"app": "web", "pod-template-hash": "5d8c9", INJECT_LABEL: "true", **(labels or {})},
            "annotations": dict(annotations or {}),
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d8c9", "controller": True}],
        },
        "spec": {"containers": [{"name": "app", "image": "example/app:1", **(app or {})}], **spec},
    }


NO_CHART = crd.Sidecar()


def injected(pod: dict[str, Any], *, chart: crd.Sidecar = NO_CHART, **spec: Any) -> dict[str, Any]:
    """The pod that comes of it. `spec`: of the config; `chart`: the chart-wide defaults."""
    return dict(outcome(pod, chart=chart, **spec).pod)


def outcome(pod: dict[str, Any], *, chart: crd.Sidecar = NO_CHART, **spec: Any) -> Injected:
    """The same with its warnings."""
    found = inject(pod, config(**spec), chart)
    assert isinstance(found, Injected), found
    return found


def sidecar(pod: dict[str, Any]) -> dict[str, Any]:
    """The sidecar's container, of which there is one."""
    (found,) = [one for one in pod["spec"]["initContainers"] if one["name"] == CONTAINER]
    return dict(found)


def variables(container: dict[str, Any]) -> dict[str, Any]:
    """A container's environment: values, or where they come from."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container.get("env", [])}


def app(pod: dict[str, Any]) -> dict[str, Any]:
    """The pod's first container."""
    return dict(pod["spec"]["containers"][0])


_words = st.text("abcdefgh", min_size=1, max_size=6)
_texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
_variables = st.sampled_from(
    ["OPENAI_BASE_URL", "OPENAI_API_KEY", "HTTP_PROXY", "NO_PROXY", "PATH", "HOME", "all_proxy"]
)
_env = st.lists(
    st.one_of(
        st.fixed_dictionaries({"name": _variables, "value": _texts}),
        st.fixed_dictionaries({"name": _variables}),
        _variables.map(
            lambda name: {"name": name, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        ),
    ),
    max_size=4,
    unique_by=lambda one: one["name"],
)
_amounts = st.sampled_from(["100m", "0.1", "1", "64Mi", "1Gi", "2e3"])
_resources = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"limits": st.fixed_dictionaries({"cpu": _amounts, "memory": _amounts})}),
    st.fixed_dictionaries(
        {
            "requests": st.dictionaries(st.sampled_from(["cpu", "memory"]), _amounts),
            "limits": st.dictionaries(st.sampled_from(["cpu", "memory"]), _amounts),
        }
    ),
)
_ports = st.lists(
    st.fixed_dictionaries(
        {"containerPort": st.sampled_from([80, 3000, 3001, 8080])},
        optional={"protocol": st.sampled_from(["TCP", "UDP"]), "name": _words},
    ),
    max_size=2,
)
_more = {
    "env": _env,
    "envFrom": st.just([{"secretRef": {"name": "more"}}]),
    "resources": _resources,
    "ports": _ports,
    "command": st.lists(_texts, max_size=2),
    "volumeMounts": st.just([{"name": "data", "mountPath": "/data"}]),
    "restartPolicy": st.just("Always"),
}


def _containers(prefix: str, least: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    each = st.fixed_dictionaries({"image": _words}, optional=_more)
    return st.lists(each, min_size=least, max_size=3).map(
        lambda many: [{"name": f"{prefix}{number}", **one} for number, one in enumerate(many)]
    )


_annotations = st.fixed_dictionaries(
    {},
    optional={
        "inferencesidecar.dev/port": st.sampled_from(["3100", "4000", "80", "x"]),
        "inferencesidecar.dev/admin-port": st.sampled_from(["3101", "4001"]),
        "inferencesidecar.dev/inject-env": st.sampled_from(["force", "forbid"]),
        "inferencesidecar.dev/config": st.sampled_from(["team", "other", "gone"]),
        "traffic.sidecar.istio.io/excludeInboundPorts": st.sampled_from(["", "9090", "3001", "1,2"]),
        "config.linkerd.io/skip-inbound-ports": st.sampled_from(["3000-3010", "25"]),
        "kubectl.kubernetes.io/default-container": st.just("app1"),
        "example.com/free": _texts,
    },
)

pods: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "apiVersion": st.just("v1"),
        "kind": st.just("Pod"),
        "metadata": st.fixed_dictionaries(
            {"labels": st.just({"app": "web", INJECT_LABEL: "true"})},
            optional={"annotations": st.one_of(st.none(), _annotations), "name": _words},
        ),
        "spec": st.fixed_dictionaries(
            {"containers": _containers("app", 1)},
            optional={
                "initContainers": _containers("init", 0),
                "volumes": st.one_of(st.none(), st.just([{"name": "data", "emptyDir": {}}])),
                "imagePullSecrets": st.just([{"name": "registry"}]),
                "hostNetwork": st.booleans(),
                "shareProcessNamespace": st.booleans(),
                "securityContext": st.sampled_from([{}, {"runAsUser": 0}, {"runAsUser": 1000}]),
                "terminationGracePeriodSeconds": st.integers(0, 60),
                "resources": st.just({"limits": {"cpu": "1"}}),
            },
        ),
    }
)
"""Any valid pod that asks for a sidecar, as far as the injector looks at pods, and some things that it must not
touch."""
