"""Who is who in the cluster: one authority, a certificate for every server and for every client.

Leaves: files in a folder, and kubeconfigs that carry their certificate within. Names and organizations are those
that Kubernetes' own roles are bound to, so that each part may do what it may do anywhere. Must not outlive the
cluster: keys lie in its folder and nowhere else.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import trustme

ADMINISTRATORS = "system:masters"
# trustme marks a certificate's alternative names as critical, and Go refuses such a list when it is empty.
NOBODY = "client.invalid"


@dataclass(frozen=True)
class Authority:
    ca: trustme.CA
    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Authority:
        """`folder` gets ca.crt, and ca.key for the controller that signs requests for certificates."""
        authority = cls(trustme.CA(organization_name="a cluster of tests"), folder)
        authority.ca.cert_pem.write_to_path(folder / "ca.crt")
        authority.ca.private_key_pem.write_to_path(folder / "ca.key")
        return authority

    def pair(self, name: str, *addresses: str, user: str, group: str | None = None) -> None:
        """`name`.crt and `name`.key, for a server at these addresses, a client of this name, or both."""
        leaf = self.ca.issue_cert(*(addresses or (NOBODY,)), common_name=user, organization_name=group)
        leaf.cert_chain_pems[0].write_to_path(self.folder / f"{name}.crt")
        leaf.private_key_pem.write_to_path(self.folder / f"{name}.key")

    def kubeconfig(self, server: str, user: str, group: str | None = None) -> str:
        """Access to the API server at `server`; as JSON, which is YAML too."""
        leaf = self.ca.issue_cert(NOBODY, common_name=user, organization_name=group)
        cluster = {"server": server, "certificate-authority-data": encoded(self.ca.cert_pem)}
        credentials = {
            "client-certificate-data": encoded(leaf.cert_chain_pems[0]),
            "client-key-data": encoded(leaf.private_key_pem),
        }
        whole = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": credentials}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }
        return json.dumps(whole, indent=2)


def encoded(blob: trustme.Blob) -> str:
    return base64.b64encode(blob.bytes()).decode()
