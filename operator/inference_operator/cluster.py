"""The API server, and nothing else of the cluster: the only user of the Kubernetes client.

Enters: what to read or write, as plain dicts. Leaves: dicts, or a `ClusterError` that says whether another try
may help. Must not decide anything, nor keep an object. Bodies of errors are cut to the API server's own message,
which names objects and never what a Secret holds.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException

from inference_config.names import GROUP

from . import naming
from .errors import OperatorError

TIMEOUT_SECS: Final = 15.0
PAGE: Final = 500
MAX_MESSAGE: Final = 500


class ClusterError(OperatorError):
    """The API server did not do it. `status` is HTTP's, 0 where there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def conflict(self) -> bool:
        """Somebody else was there first: read again, then try again."""
        return self.status == 409

    @property
    def forbidden(self) -> bool:
        """The operator's role lacks a right; another try helps once it was given."""
        return self.status == 403


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as the API's paths name it: `apps/v1`, `deployments`."""

    api: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
        """The path of one object, or of all of a namespace or the cluster."""
        root = f"/api/{self.api}" if "/" not in self.api else f"/apis/{self.api}"
        parts = [root]
        if namespace:
            parts.append(f"namespaces/{quote(namespace, safe='')}")
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


CONFIGS: Final = Resource(f"{GROUP}/v1alpha1", naming.PLURAL)
SECRETS: Final = Resource("v1", "secrets")
PODS: Final = Resource("v1", "pods")
NAMESPACES: Final = Resource("v1", "namespaces")
EVENTS: Final = Resource("v1", "events")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io/v1", "endpointslices")
WEBHOOKS: Final = Resource("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations")
WORKLOADS: Final[Mapping[str, Resource]] = {
    "ReplicaSet": Resource("apps/v1", "replicasets"),
    "StatefulSet": Resource("apps/v1", "statefulsets"),
    "DaemonSet": Resource("apps/v1", "daemonsets"),
    "Job": Resource("batch/v1", "jobs"),
}
"""What makes pods, by kind. A Deployment's pods are made by its ReplicaSet."""

_MERGE: Final = "application/merge-patch+json"
_JSON_PATCH: Final = "application/json-patch+json"
_APPLY: Final = "application/apply-patch+yaml"


class Cluster:
    """A connection to the API server, for any number of tasks at once."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connected(cls) -> AsyncIterator[Self]:
        """In a pod by its ServiceAccount, elsewhere by KUBECONFIG."""
        settings = Configuration()
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
                kube_config.load_incluster_config(client_configuration=settings)
            else:
                await kube_config.load_kube_config(client_configuration=settings)
        except ConfigException as error:
            raise ClusterError(f"no way to the API server: {str(error)[:MAX_MESSAGE]}") from None
        settings.retries = False
        async with ApiClient(settings) as client:
            yield cls(client)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any] | None:
        """One object, None where there is none."""
        try:
            return await self._call("GET", resource.path(namespace, name))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def items(
        self, resource: Resource, namespace: str | None, *, labels: str = "", fields: str = ""
    ) -> list[dict[str, Any]]:
        """All objects that the selectors leave, page by page."""
        found: list[dict[str, Any]] = []
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        while True:
            page = await self._call("GET", resource.path(namespace), query=query)
            found += page.get("items") or []
            query["continue"] = (page.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return found

    async def apply(
        self, resource: Resource, obj: Mapping[str, Any], *, subresource: str = "", force: bool = True
    ) -> dict[str, Any]:
        """Server-side apply under the operator's own field manager."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        query = {"fieldManager": naming.FIELD_MANAGER, "force": "true" if force else ""}
        return await self._call("PATCH", path, query=query, body=dict(obj), media=_APPLY)

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        change: Mapping[str, Any] | list[dict[str, Any]],
        *,
        subresource: str = "",
    ) -> dict[str, Any] | None:
        """Merge patch (a mapping) or JSON patch (a list). None where the object is gone."""
        path = resource.path(namespace, name, subresource)
        media = _JSON_PATCH if isinstance(change, list) else _MERGE
        body = change if isinstance(change, list) else dict(change)
        try:
            return await self._call(
                "PATCH", path, query={"fieldManager": naming.FIELD_MANAGER}, body=body, media=media
            )
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, resource: Resource, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Create one object. Raises ClusterError with `conflict` where it is there already."""
        path = resource.path(obj["metadata"].get("namespace"))
        return await self._call("POST", path, query={"fieldManager": naming.FIELD_MANAGER}, body=dict(obj))

    async def replace(self, resource: Resource, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Replace one object. With a resourceVersion in it, raises ClusterError with `conflict` where it changed."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return await self._call("PUT", path, query={"fieldManager": naming.FIELD_MANAGER}, body=dict(obj))

    async def version(self) -> tuple[int, int]:
        """The API server's version, major and minor."""
        told = await self._call("GET", "/version")
        digits = ("".join(filter(str.isdigit, str(told.get(part, "0")))) for part in ("major", "minor"))
        major, minor = (int(text or 0) for text in digits)
        return major, minor

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        media: str = "application/json",
    ) -> dict[str, Any]:
        pairs = [(name, value) for name, value in (query or {}).items() if value]
        headers = {"Accept": "application/json", "Content-Type": media}
        try:
            _, url, headers, body, _ = await self._client.param_serialize(
                method,
                path,
                query_params=pairs,
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            async with asyncio.timeout(TIMEOUT_SECS):
                response = await self._client.call_api(method, url, headers, body)
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise ClusterError(f"the API server cannot be reached: {why[:MAX_MESSAGE]}") from error
        if response.status >= 400:
            raise ClusterError(_message(response.status, content), response.status)
        return _object(content)


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        raise ClusterError("the API server's answer is no JSON") from None
    if not isinstance(found, dict):
        raise ClusterError("the API server's answer is no object")
    return found


def _message(status: int, content: bytes) -> str:
    try:
        told = str(json.loads(content)["message"])
    except (ValueError, LookupError, TypeError):
        told = "no reason given"
    return f"the API server answered {status}: {told[:MAX_MESSAGE]}"
