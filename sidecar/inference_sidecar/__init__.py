"""The sidecar: serves the OpenAI API on a pod's loopback and forwards it, truthfully and measured."""
