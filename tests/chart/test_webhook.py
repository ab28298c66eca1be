"""The chart's webhook: which pods it hears of, and with whose certificates.

Tested: selectors against pods and namespaces, as the API server reads them; how it is called; the three ways to
certificates. Left out: the injector itself (tests/operator), an API server that calls it (tests/cluster).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from chart.conftest import Render
from chart.release import NAMESPACE, VARIANTS, Release, matches
from inference_operator import naming
from inference_operator.__main__ import _parser

pytestmark = pytest.mark.timeout(900)

COMPONENTS = ("operator", "injector")
OPTED_IN, DECLINED = {naming.INJECT_LABEL: "true"}, {naming.INJECT_LABEL: "false"}


@pytest.fixture(params=VARIANTS)
def release(request: pytest.FixtureRequest, render: Render) -> Release:
    return render(request.param)


def asked(release: Release, namespace: str, pod: Mapping[str, str], labels: Mapping[str, str]) -> list[str]:
    """Webhooks that hear of a pod, by the labels of both."""
    around = {"kubernetes.io/metadata.name": namespace, **labels}
    return [
        hook["name"].partition(".")[0]
        for hook in release.one("MutatingWebhookConfiguration")["webhooks"]
        if matches(hook["objectSelector"], pod) and matches(hook["namespaceSelector"], around)
    ]


class TestWebhook:
    @pytest.mark.parametrize(
        ("namespace", "pod", "labels", "expected"),
        [
            ("team-a", OPTED_IN, {}, ["pod"]),
            ("team-a", OPTED_IN, OPTED_IN, ["pod"]),
            ("team-a", {}, OPTED_IN, ["namespace"]),
            ("team-a", {"app": "web"}, {}, []),
            ("team-a", DECLINED, OPTED_IN, []),
            ("kube-system", OPTED_IN, {}, []),
            ("kube-system", {}, OPTED_IN, []),
        ],
    )
    def test_hears_once_of_pods_that_ask_and_of_no_others(
        self, render: Render, namespace: str, pod: dict[str, str], labels: dict[str, str], expected: list[str]
    ) -> None:
        assert asked(render(), namespace, pod, labels) == expected
        named = expected if namespace == "team-a" else []
        assert asked(render("named"), namespace, pod, labels) == named
        assert asked(render("named"), "team-c", pod, labels) == []

    def test_can_be_opened_to_every_namespace(self, render: Render) -> None:
        release = render("default", "webhook.excludedNamespaces=null")
        assert asked(release, "kube-system", OPTED_IN, {}) == ["pod"]
        first = release.one("MutatingWebhookConfiguration")["webhooks"][0]
        assert first["namespaceSelector"] == {}

    def test_never_hears_of_the_charts_own_pods(self, release: Release) -> None:
        """An injector that had to be there to be made would never be."""
        for pod in release.pods():
            assert asked(release, NAMESPACE, pod["metadata"]["labels"], OPTED_IN) == []

    def test_is_asked_for_new_pods_alone_and_soon_given_up(self, release: Release) -> None:
        values = release.values["webhook"]
        for hook in release.one("MutatingWebhookConfiguration")["webhooks"]:
            (rule,) = hook["rules"]
            assert (rule["operations"], rule["apiGroups"], rule["resources"]) == (["CREATE"], [""], ["pods"])
            assert (hook["failurePolicy"], hook["timeoutSeconds"]) == (
                values["failurePolicy"],
                values["timeoutSeconds"],
            )
            assert (hook["sideEffects"], hook["reinvocationPolicy"], hook["matchPolicy"]) == (
                "None",
                "IfNeeded",
                "Equivalent",
            )
            called = hook["clientConfig"]["service"]
            assert called["path"] == "/inject"
            assert (called["name"], called["namespace"]) == (
                release.one("Service")["metadata"]["name"],
                NAMESPACE,
            )
            assert called["port"] == release.one("Service")["spec"]["ports"][0]["port"]


class TestCertificates:
    def test_no_template_has_an_authority(self, release: Release) -> None:
        """What it has, an upgrade would put in the place of what the cluster has made of it."""
        given = release.values["webhook"]["certificates"]["caBundle"]
        for hook in release.one("MutatingWebhookConfiguration")["webhooks"]:
            assert hook["clientConfig"].get("caBundle", "") == given
        assert release.objects("Secret") == []

    def test_of_the_operator(self, render: Render) -> None:
        release = render()
        operator, injector = (_parser().parse_args(release.container(each)["args"]) for each in COMPONENTS)
        assert (
            operator.certificates_secret
            == injector.certificates_secret
            == "house-inference-sidecar-certificates"
        )
        assert (
            operator.webhook_configuration == release.one("MutatingWebhookConfiguration")["metadata"]["name"]
        )
        assert operator.webhook_service == release.one("Service")["metadata"]["name"]

    @pytest.mark.parametrize("variant", ["own_certificates", "cert_manager", "everything"])
    def test_of_others(self, render: Render, variant: str) -> None:
        release = render(variant)
        operator, injector = (_parser().parse_args(release.container(each)["args"]) for each in COMPONENTS)
        assert (operator.certificates_secret, operator.webhook_configuration) == (None, None)
        assert injector.certificates_secret is None
        (volume,) = [
            one for one in release.pod("injector")["spec"]["volumes"] if one["name"] == "certificates"
        ]
        (mount,) = [
            one for one in release.container("injector")["volumeMounts"] if one["name"] == "certificates"
        ]
        folder = Path(mount["mountPath"])
        assert (injector.tls_cert, injector.tls_key) == (folder / "tls.crt", folder / "tls.key")
        expected = "house-inference-sidecar-certificates" if variant == "cert_manager" else "my-certificate"
        assert volume["secret"]["secretName"] == expected

    def test_of_cert_manager(self, render: Render) -> None:
        release = render("cert_manager")
        leaf = release.one("Certificate", "house-inference-sidecar-injector")
        service = release.one("Service")["metadata"]["name"]
        assert set(leaf["spec"]["dnsNames"]) == set(naming.service_hosts(service, NAMESPACE))
        annotations = release.one("MutatingWebhookConfiguration")["metadata"]["annotations"]
        assert annotations["cert-manager.io/inject-ca-from"] == f"{NAMESPACE}/{leaf['metadata']['name']}"
        chain = {one["metadata"]["name"]: one["spec"] for one in release.objects("Issuer")}
        authority = release.one("Certificate", "house-inference-sidecar-injector-ca")["spec"]
        assert authority["isCA"] is True
        assert chain[leaf["spec"]["issuerRef"]["name"]] == {"ca": {"secretName": authority["secretName"]}}
        assert chain[authority["issuerRef"]["name"]] == {"selfSigned": {}}

    def test_of_cert_manager_with_an_issuer_of_ones_own(self, render: Render) -> None:
        release = render("everything")
        assert release.objects("Issuer") == []
        leaf = release.one("Certificate")["spec"]
        assert leaf["issuerRef"] == {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "platform"}
        assert (leaf["duration"], leaf["renewBefore"]) == ("720h", "240h")
