"""The operator: turns InferenceConfig resources and Secrets into the sidecar's configuration."""
