{{/* The name that all objects begin with. */}}
{{- define "nearstream.name" -}}
{{- if contains "nearstream" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-nearstream" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Labels by which a part is selected; call with (dict "part" "worker" "root" .). */}}
{{- define "nearstream.selector" -}}
app.kubernetes.io/name: nearstream
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "nearstream.labels" -}}
{{ include "nearstream.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "nearstream.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "nearstream.hasLogin" -}}
{{- if hasPrefix "SASL" .Values.kafka.securityProtocol }}yes{{ end }}
{{- end }}

{{- define "nearstream.hasTls" -}}
{{- if and (hasSuffix "SSL" .Values.kafka.securityProtocol) .Values.kafka.tls.existingSecret }}yes{{ end }}
{{- end }}

{{- define "nearstream.loginSecret" -}}
{{ .Values.kafka.sasl.existingSecret | default (printf "%s-kafka-login" (include "nearstream.name" .)) }}
{{- end }}

{{/* What would only fail once pods run. */}}
{{- define "nearstream.check" -}}
{{- if gt (int .Values.worker.replicas) (int .Values.topics.partitions) }}
{{- fail (printf "worker.replicas: expected at most topics.partitions (%v), got %v: the others would have nothing to do" .Values.topics.partitions .Values.worker.replicas) }}
{{- end }}
{{- if .Values.autoscaling.enabled }}
{{- if gt (int .Values.autoscaling.maxReplicas) (int .Values.topics.partitions) }}
{{- fail (printf "autoscaling.maxReplicas: expected at most topics.partitions (%v), got %v" .Values.topics.partitions .Values.autoscaling.maxReplicas) }}
{{- end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas: expected at most maxReplicas (%v), got %v" .Values.autoscaling.maxReplicas .Values.autoscaling.minReplicas) }}
{{- end }}
{{- end }}
{{- range list "bootstrap" "prefix" "group" "partitions" "replication" "security_protocol" "sasl_mechanism" "sasl_username" "sasl_password" "ssl_cafile" "ssl_certfile" "ssl_keyfile" "ssl_check_hostname" "log_format" "rules" "model" "worker_id" "group_instance_id" "session_timeout_ms" "web_port" "web_host" "web_url" "dashboard_port" "dashboard_host" "read_token" "write_token" "data_dir" }}
{{- if hasKey $.Values.settings . }}
{{- fail (printf "settings.%s: the chart sets it itself; use the value that has a place of its own" .) }}
{{- end }}
{{- end }}
{{- $sasl := .Values.kafka.sasl }}
{{- if and (include "nearstream.hasLogin" .) (not $sasl.existingSecret) (not (and $sasl.username $sasl.password)) }}
{{- fail (printf "kafka.sasl: %s needs existingSecret, or username and password" .Values.kafka.securityProtocol) }}
{{- end }}
{{- if and .Values.kafka.tls.existingSecret (not (hasSuffix "SSL" .Values.kafka.securityProtocol)) }}
{{- fail (printf "kafka.tls.existingSecret: expected securityProtocol SSL or SASL_SSL beside it, got %s" .Values.kafka.securityProtocol) }}
{{- end }}
{{- end }}

{{/* Variables of every container of ours. */}}
{{- define "nearstream.environment" -}}
envFrom:
  - configMapRef: {name: {{ include "nearstream.name" . }}-settings}
{{- if include "nearstream.hasLogin" . }}
env:
  - name: NEARSTREAM_SASL_USERNAME
    valueFrom: {secretKeyRef: {name: {{ include "nearstream.loginSecret" . }}, key: username}}
  - name: NEARSTREAM_SASL_PASSWORD
    valueFrom: {secretKeyRef: {name: {{ include "nearstream.loginSecret" . }}, key: password}}
{{- else }}
env: []
{{- end }}
{{- end }}

{{- define "nearstream.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "nearstream.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
# Kubernetes would set NEARSTREAM_DASHBOARD_PORT=tcp://… for the Service of that name, which is a setting of ours.
enableServiceLinks: false
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Mounts and volumes of every container of ours: scratch, compiled kernels, TLS. */}}
{{- define "nearstream.mounts" -}}
- {name: scratch, mountPath: /tmp, subPath: tmp}
- {name: scratch, mountPath: /var/cache/nearstream, subPath: cache}
{{- if include "nearstream.hasTls" . }}
- {name: tls, mountPath: /etc/nearstream/tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "nearstream.volumes" -}}
- name: scratch
  emptyDir: {}
{{- if include "nearstream.hasTls" . }}
- name: tls
  secret: {secretName: {{ .Values.kafka.tls.existingSecret }}}
{{- end }}
{{- end }}
