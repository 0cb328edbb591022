{{/* What the three bundled servers share. They are for trying out: one pod each, on a volume that outlives the release. */}}

{{/* Volume claim and Service. (dict "root" $ "name" "postgresql" "port" 5432 "values" .Values.database.bundled) */}}
{{- define "bedplate.bundled.volumeAndService" -}}
{{- $component := dict "root" .root "component" .name -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ include "bedplate.fullname" .root }}-{{ .name }}
  labels:
    {{- include "bedplate.labels" $component | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteOnce]
  {{- with .values.storage.storageClass }}
  storageClassName: {{ . | quote }}
  {{- end }}
  resources:
    requests: {storage: {{ .values.storage.size }}}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "bedplate.fullname" .root }}-{{ .name }}
  labels:
    {{- include "bedplate.labels" $component | nindent 4 }}
spec:
  selector:
    {{- include "bedplate.selector" $component | nindent 4 }}
  ports:
    - {name: {{ .portName }}, port: {{ .port }}, targetPort: {{ .portName }}}
{{- end -}}

{{/* Everything of a StatefulSet up to its containers. */}}
{{- define "bedplate.bundled.statefulSet" -}}
{{- $component := dict "root" .root "component" .name -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ include "bedplate.fullname" .root }}-{{ .name }}
  labels:
    {{- include "bedplate.labels" $component | nindent 4 }}
spec:
  replicas: 1
  serviceName: {{ include "bedplate.fullname" .root }}-{{ .name }}
  selector:
    matchLabels:
      {{- include "bedplate.selector" $component | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "bedplate.selector" $component | nindent 8 }}
    spec:
      {{- $values := dict "nodeSelector" (dict) "tolerations" list "affinity" (dict) "priorityClassName" "" }}
      {{- $place := fromYaml (include "bedplate.podPlace" (dict "root" .root "component" .name "values" $values)) }}
      {{- $user := dict "runAsUser" .values.userId "runAsGroup" .values.userId "fsGroup" .values.userId }}
      {{- $_ := set $place "securityContext" (mergeOverwrite (dict) .root.Values.podDefaults.securityContext $user) }}
      {{- toYaml (omit $place "topologySpreadConstraints") | nindent 6 }}
      terminationGracePeriodSeconds: 60
{{- end -}}

{{/* Image, security, port and probes of the server. */}}
{{- define "bedplate.bundled.container" -}}
image: {{ include "bedplate.bundledImage" .values.image }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- toYaml .root.Values.podDefaults.containerSecurityContext | nindent 2 }}
ports:
  - {name: {{ .portName }}, containerPort: {{ .port }}}
startupProbe:
  tcpSocket: {port: {{ .portName }}}
  periodSeconds: 2
  failureThreshold: 150
livenessProbe:
  tcpSocket: {port: {{ .portName }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
resources:
  {{- toYaml .values.resources | nindent 2 }}
{{- end -}}
