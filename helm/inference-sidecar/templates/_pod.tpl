{{/*
What operator and injector have in common, as the metadata and the spec of a pod template.
`component`: operator or injector, which is also its section of the values. `container`: what its container has beside
this; `volumes`: what its pod has.
*/}}

{{/* Declined, whatever the values say: in a namespace that asks for sidecars as a whole, no injector could be made
before one is there. */}}
{{- define "inference-sidecar.podMetadata" -}}
{{- $values := index .root.Values .component -}}
{{- $defaults := include "inference-sidecar.defaultsFile" .root | sha256sum -}}
{{- $fixed := dict "app.kubernetes.io/component" .component "inferencesidecar.dev/inject" "false" -}}
{{- $labels := include "inference-sidecar.labels" .root | fromYaml -}}
annotations:
  {{- toYaml (merge (dict "checksum/defaults" $defaults) $values.podAnnotations) | nindent 2 }}
labels:
  {{- toYaml (merge $fixed (pick $labels "app.kubernetes.io/name" "app.kubernetes.io/instance") $values.podLabels $labels) | nindent 2 }}
{{- end -}}

{{/* The values' own variables replace those of the same name. Between what they can refer to and what refers to what
they may replace: kubelet expands only what stands before. */}}
{{- define "inference-sidecar.env" -}}
{{- $values := index .root.Values .component -}}
{{- $given := list -}}
{{- range $values.env }}{{ $given = append $given .name }}{{ end -}}
{{- $downward := dict "POD_NAME" "metadata.name" "POD_NAMESPACE" "metadata.namespace" "POD_UID" "metadata.uid" "NODE_NAME" "spec.nodeName" -}}
{{- $made := list -}}
{{- range $name, $path := $downward }}
{{- if not (has $name $given) }}
{{- $made = append $made (dict "name" $name "valueFrom" (dict "fieldRef" (dict "fieldPath" $path))) }}
{{- end }}
{{- end }}
{{- $made = concat $made $values.env -}}
{{- if not (has "OTEL_RESOURCE_ATTRIBUTES" $given) }}
{{- $deployment := ternary (include "inference-sidecar.injector" .root) (include "inference-sidecar.fullname" .root) (eq .component "injector") }}
{{- $workload := printf "k8s.deployment.name=%s,k8s.workload.kind=deployment,k8s.workload.name=%s" $deployment $deployment }}
{{- $pod := "k8s.namespace.name=$(POD_NAMESPACE),k8s.node.name=$(NODE_NAME),k8s.pod.name=$(POD_NAME),k8s.pod.uid=$(POD_UID)" }}
{{- $service := printf "service.instance.id=$(POD_NAMESPACE).$(POD_NAME).%s,service.namespace=$(POD_NAMESPACE)" .component }}
{{- $attributes := printf "k8s.container.name=%s,%s,%s,%s" .component $workload $pod $service }}
{{- $made = append $made (dict "name" "OTEL_RESOURCE_ATTRIBUTES" "value" $attributes) }}
{{- end }}
{{- toYaml $made -}}
{{- end -}}

{{- define "inference-sidecar.podSpec" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "inference-sidecar.serviceAccount" . }}
automountServiceAccountToken: true
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ include "inference-sidecar.image" (dict "root" .root "image" .root.Values.images.operator) }}
    imagePullPolicy: {{ .root.Values.images.operator.pullPolicy }}
    args:
      {{- .args | nindent 6 }}
      {{- with $values.extraArgs }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    env:
      {{- include "inference-sidecar.env" . | nindent 6 }}
    ports:
      {{- with .ports }}
      {{- . | nindent 6 }}
      {{- end }}
      - name: health
        containerPort: {{ $values.healthPort }}
        protocol: TCP
    readinessProbe:
      httpGet:
        path: /readyz
        port: health
      periodSeconds: 2
      timeoutSeconds: 2
      failureThreshold: 2
    livenessProbe:
      httpGet:
        path: /livez
        port: health
      initialDelaySeconds: 10
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 3
    {{- with $values.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .root.Values.containerSecurityContext }}
    securityContext:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    volumeMounts:
      - name: defaults
        mountPath: /etc/inference-operator
        readOnly: true
      {{- with .mounts }}
      {{- . | nindent 6 }}
      {{- end }}
volumes:
  - name: defaults
    configMap:
      name: {{ include "inference-sidecar.defaults" .root }}
  {{- with .volumes }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}
