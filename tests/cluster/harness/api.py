"""The API server by plain HTTP, as the cluster's owner: many small calls, where a kubectl for each would be slow.

Enters: a kubeconfig, paths, objects. Leaves: objects, or `Refused` with the API server's own words.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from kubernetes.client import Configuration
from kubernetes.config import load_kube_config

from inference_operator.cluster import Resource

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


class Refused(AssertionError):
    """The API server said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True)
class Access:
    """`owner`: TLS with the kubeconfig's own certificate. `anybody`: without one, for whoever brings a token."""

    server: str
    headers: Mapping[str, str]
    owner: ssl.SSLContext
    anybody: ssl.SSLContext

    @classmethod
    def of(cls, kubeconfig: Path) -> Access:
        found = Configuration()
        load_kube_config(str(kubeconfig), client_configuration=found)
        token = found.get_api_key_with_prefix("authorization")
        owner = ssl.create_default_context(cafile=found.ssl_ca_cert)
        if found.cert_file:
            owner.load_cert_chain(found.cert_file, found.key_file)
        anybody = ssl.create_default_context(cafile=found.ssl_ca_cert)
        return cls(str(found.host), {"Authorization": token} if token else {}, owner, anybody)


class Api:
    """Calls, from any thread."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._client = httpx.Client(
            base_url=access.server,
            verify=access.owner,
            headers=dict(access.headers),
            timeout=30,
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def call(
        self, method: str, path: str, body: Any = None, media: str = "application/json"
    ) -> dict[str, Any]:
        answer = self._client.request(method, path, json=body, headers={"Content-Type": media})
        said = answer.json()
        if answer.is_error:
            raise Refused(answer.status_code, said.get("message", ""))
        return dict(said)

    def find(self, kind: Resource, namespace: str | None, name: str) -> dict[str, Any] | None:
        """One object, None where there is none."""
        try:
            return self.call("GET", kind.path(namespace, name))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def get(self, kind: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        return self.call("GET", kind.path(namespace, name))

    def items(self, kind: Resource, namespace: str | None) -> list[dict[str, Any]]:
        return list(self.call("GET", kind.path(namespace)).get("items") or [])

    def create(self, kind: Resource, namespace: str | None, obj: Mapping[str, Any]) -> dict[str, Any]:
        return self.call("POST", kind.path(namespace), obj)

    def merge(
        self,
        kind: Resource,
        namespace: str | None,
        name: str,
        change: Mapping[str, Any],
        subresource: str = "",
    ) -> dict[str, Any]:
        return self.call("PATCH", kind.path(namespace, name, subresource), change, MERGE)

    def delete(self, kind: Resource, namespace: str | None, name: str) -> None:
        self.call("DELETE", kind.path(namespace, name))
