{{/* What the operator does in the namespaces that it serves. RBAC knows no names here: people choose them. */}}
{{- define "inference-sidecar.rules.operator" -}}
- apiGroups: [inferencesidecar.dev]
  resources: [inferenceconfigs]
  verbs: [get, list, watch]
- apiGroups: [inferencesidecar.dev]
  resources: [inferenceconfigs/status]
  verbs: [get, patch, update]
# Those that InferenceConfigs name are read, one for each is written. None is deleted: garbage collection does that.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# An annotation, so that kubelet refreshes the config at once; a pod's spec stays out of reach.
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [events]
  verbs: [get, create, update, patch]
# An annotation, so that controllers whose pods were refused try again at once.
- apiGroups: [apps]
  resources: [replicasets, statefulsets, daemonsets]
  verbs: [get, list]
- apiGroups: [apps]
  resources: [replicasets/status, statefulsets/status, daemonsets/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list]
- apiGroups: [batch]
  resources: [jobs/status]
  verbs: [patch]
{{- end -}}

{{- define "inference-sidecar.rules.injector" -}}
- apiGroups: [inferencesidecar.dev]
  resources: [inferenceconfigs]
  verbs: [get, list]
{{- end -}}

{{/* In the release's own namespace. */}}
{{- define "inference-sidecar.ownRules.operator" -}}
- apiGroups: [""]
  resources: [events]
  verbs: [get, create, update, patch]
{{- if eq .Values.webhook.certificates.mode "operator" }}
# RBAC cannot limit a create by name.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "inference-sidecar.certificates" . }}]
  verbs: [get, update]
{{- end }}
{{- end -}}

{{- define "inference-sidecar.ownRules.injector" -}}
{{- if eq .Values.webhook.certificates.mode "operator" }}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "inference-sidecar.certificates" . }}]
  verbs: [get]
{{- end }}
{{- end -}}

{{/* On objects that are in no namespace. */}}
{{- define "inference-sidecar.wideRules.operator" -}}
{{- if not .Values.scope.namespaces }}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
{{- end }}
{{- if eq .Values.webhook.certificates.mode "operator" }}
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations]
  resourceNames: [{{ include "inference-sidecar.wideName" . }}]
  verbs: [get, patch]
{{- end }}
{{- end -}}

{{- define "inference-sidecar.wideRules.injector" -}}
{{- end -}}
