{{- define "inference-sidecar.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 50 characters: a Service has 63, and "-injector" and the like follow. */}}
{{- define "inference-sidecar.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* For objects outside of the release's namespace: releases of one name in two namespaces do not meet. */}}
{{- define "inference-sidecar.wideName" -}}
{{- printf "%s.%s" (include "inference-sidecar.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "inference-sidecar.injector" -}}
{{- printf "%s-injector" (include "inference-sidecar.fullname" .) -}}
{{- end -}}

{{- define "inference-sidecar.defaults" -}}
{{- printf "%s-defaults" (include "inference-sidecar.fullname" .) -}}
{{- end -}}

{{- define "inference-sidecar.certificates" -}}
{{- $own := printf "%s-certificates" (include "inference-sidecar.fullname" .) -}}
{{- if eq .Values.webhook.certificates.mode "operator" -}}
{{- $own -}}
{{- else if eq .Values.webhook.certificates.mode "secret" -}}
{{- required "webhook.certificates.secretName is needed where webhook.certificates.mode is secret" .Values.webhook.certificates.secretName -}}
{{- else -}}
{{- .Values.webhook.certificates.secretName | default $own -}}
{{- end -}}
{{- end -}}

{{/* `component`: operator or injector. Selectors cannot be changed: neither may this. */}}
{{- define "inference-sidecar.selectorLabels" -}}
app.kubernetes.io/name: {{ include "inference-sidecar.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Those of the values go before all but the ones that selectors rely on. */}}
{{- define "inference-sidecar.labels" -}}
{{- $fixed := dict "app.kubernetes.io/name" (include "inference-sidecar.name" .) "app.kubernetes.io/instance" .Release.Name -}}
{{- $chart := printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- $usual := dict "app.kubernetes.io/part-of" "inference-sidecar" "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/managed-by" .Release.Service "helm.sh/chart" $chart -}}
{{- toYaml (merge $fixed (omit .Values.commonLabels "app.kubernetes.io/component") $usual) -}}
{{- end -}}

{{- define "inference-sidecar.image" -}}
{{- with .image.registry }}{{ . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- define "inference-sidecar.serviceAccount" -}}
{{- $account := index .root.Values.serviceAccounts .component -}}
{{- $suffix := ternary "-injector" "" (eq .component "injector") -}}
{{- $own := printf "%s%s" (include "inference-sidecar.fullname" .root) $suffix -}}
{{- $account.name | default (ternary $own "default" $account.create) -}}
{{- end -}}

{{/* The file that `--defaults` names. */}}
{{- define "inference-sidecar.defaultsFile" -}}
{{- $image := dict "image" (include "inference-sidecar.image" (dict "root" . "image" .Values.images.sidecar)) -}}
{{- toYaml (merge $image (dict "imagePullPolicy" .Values.images.sidecar.pullPolicy) .Values.sidecar) -}}
{{- end -}}
