"""How one goes on with a cluster that has the chart: lines for a shell, from an empty namespace to a rotated key.

Enters: names. Leaves: text that can be pasted as it is. Must not run it: a person does, and a test.
"""

from __future__ import annotations

from typing import Final

NAMESPACE: Final = "demo"

TEXT: Final = """\
# A namespace with an upstream that takes any key, a key, and an InferenceConfig that joins the two.
kubectl create namespace {namespace}
kubectl config set-context --current --namespace={namespace}
kubectl run upstream --image={image} --port=8080 --expose -- python upstream.py
kubectl create secret generic openai --from-literal=api-key=sk-first
kubectl apply -f - <<END
apiVersion: inferencesidecar.dev/v1alpha1
kind: InferenceConfig
metadata: {{name: openai}}
spec:
  selector: {{}}
  inference:
    apiKeySecretRef: {{name: openai, key: api-key}}
    baseUrl: http://upstream:8080/v1
    defaultModel: gpt-4o
END
kubectl wait --for=condition=Ready infc/openai pod/upstream --timeout=60s

# An app on the OpenAI SDK: its label asks for a sidecar, and it has no key. Each line of its log is a call.
kubectl run app --image={image} --labels=inferencesidecar.dev/inject=true --env=PAUSE=1
kubectl wait --for=condition=Ready pod/app --timeout=60s
until kubectl logs app --tail=2 | grep text; do sleep 1; done
kubectl get infc

# Another key, live in the running pod: the upstream writes down which one each call came with.
kubectl patch secret openai --patch '{{"stringData": {{"api-key": "sk-second"}}}}'
ledger=/api/v1/namespaces/{namespace}/pods/upstream:8080/proxy/ledger
until kubectl get --raw "$ledger" | grep --max-count=1 sk-second; do sleep 1; done
kubectl get pod app
"""


def lines(image: str, namespace: str = NAMESPACE) -> str:
    """`image`: the one with upstream and app, as the node knows it."""
    return TEXT.format(image=image, namespace=namespace)
