{{/* What all pods share: metadata, security, scheduling, volumes and the container that waits for the databases. */}}

{{/* Metadata of a pod template. The checksum restarts pods whose settings changed.
     (dict "root" $ "component" "api" "values" .Values.api) */}}
{{- define "bedplate.podMetadata" -}}
{{- $defaults := .root.Values.podDefaults -}}
annotations:
  {{- $annotations := mergeOverwrite (dict) $defaults.annotations .values.annotations }}
  {{- $_ := set $annotations "checksum/settings" (include "bedplate.settings" .root | sha256sum) }}
  {{- toYaml $annotations | nindent 2 }}
labels:
  {{- $labels := mergeOverwrite (dict) $defaults.labels .values.labels (fromYaml (include "bedplate.selector" .)) }}
  {{- toYaml $labels | nindent 2 }}
{{- end -}}

{{/* Who a pod is and where it may run. (... "gpu" true for one with a GPU) */}}
{{- define "bedplate.podPlace" -}}
{{- $defaults := .root.Values.podDefaults -}}
{{- $gpu := .root.Values.gpu -}}
serviceAccountName: {{ include "bedplate.serviceAccountName" .root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  {{- toYaml $defaults.securityContext | nindent 2 }}
{{- with (coalesce .values.priorityClassName $defaults.priorityClassName) }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- $nodes := default $defaults.nodeSelector .values.nodeSelector }}
{{- if .gpu }}{{- $nodes = merge (dict) $nodes $gpu.nodeSelector }}{{- end }}
{{- with $nodes }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := default $defaults.tolerations .values.tolerations }}
{{- if .gpu }}{{- $tolerations = concat $tolerations $gpu.tolerations }}{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (coalesce .values.affinity $defaults.affinity) }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and .gpu $gpu.runtimeClassName }}
runtimeClassName: {{ $gpu.runtimeClassName | quote }}
{{- end }}
{{- if $defaults.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range $defaults.topologySpread.keys }}
  - topologyKey: {{ . | quote }}
    maxSkew: 1
    whenUnsatisfiable: {{ $defaults.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "bedplate.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Image and security of a container of Bedplate. (dict "root" $ "image" "api") */}}
{{- define "bedplate.container" -}}
image: {{ include "bedplate.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- toYaml .root.Values.podDefaults.containerSecurityContext | nindent 2 }}
{{- end -}}

{{/* Where the settings that are no secret come from. */}}
{{- define "bedplate.envFrom" -}}
envFrom:
  - configMapRef:
      name: {{ include "bedplate.fullname" . }}-settings
{{- end -}}

{{/* Resources, with a GPU added. (dict "root" $ "resources" .Values.api.resources "gpu" true) */}}
{{- define "bedplate.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if .gpu -}}
{{- $limits := default (dict) $resources.limits -}}
{{- $_ := set $limits .root.Values.gpu.resource 1 -}}
{{- $_ = set $resources "limits" $limits -}}
{{- end -}}
resources:
  {{- toYaml $resources | nindent 2 }}
{{- end -}}

{{/* The root file system is read-only; these are the places that are not. */}}
{{- define "bedplate.mounts" -}}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: cache, mountPath: /var/cache/bedplate}
  - {name: spool, mountPath: /var/lib/bedplate}
{{- end -}}

{{/* (dict "root" $ "cache" .Values.api.cache "spool" "2Gi") */}}
{{- define "bedplate.volumes" -}}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: {{ .root.Values.podDefaults.tmpSize }}}
  - name: cache
    {{- if not .cache }}
    emptyDir: {sizeLimit: 1Gi}
    {{- else if eq .cache.type "emptyDir" }}
    emptyDir: {sizeLimit: {{ .cache.size }}}
    {{- else }}
    ephemeral:
      volumeClaimTemplate:
        spec:
          accessModes: [ReadWriteOnce]
          {{- with .cache.storageClass }}
          storageClassName: {{ . | quote }}
          {{- end }}
          resources:
            requests: {storage: {{ .cache.size }}}
    {{- end }}
  - name: spool
    emptyDir: {sizeLimit: {{ default "64Mi" .spool }}}
{{- end -}}

{{/* Waits until both databases have the revision of this image, or a newer one. (dict "root" $ "image" "api") */}}
{{- define "bedplate.waitForMigrations" -}}
- name: wait-for-migrations
  {{- include "bedplate.container" . | nindent 2 }}
  command: [python, -m, bedplate_services.migrations]
  args: [wait, --timeout-seconds, {{ int .root.Values.migrations.waitSeconds | quote }}]
  {{- include "bedplate.envFrom" .root | nindent 2 }}
  {{- include "bedplate.env" (dict "root" .root) | nindent 2 }}
  {{- include "bedplate.resources" (dict "resources" .root.Values.migrations.resources) | nindent 2 }}
  {{- include "bedplate.mounts" . | nindent 2 }}
{{- end -}}

{{/* Probes of a service: a large budget to begin with, ready once it says so, dead after half a minute.
     (dict "startup" .Values.api.startup) */}}
{{- define "bedplate.probes" -}}
startupProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ max 1 (div .startup.seconds 5) }}
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* Liveness of a process that listens nowhere, by the age of the file that it touches.
     (dict "seconds" 120) */}}
{{- define "bedplate.heartbeatProbes" -}}
startupProbe:
  exec: {command: [python, -m, bedplate_workers.alive, --max-age-seconds, {{ int .seconds | quote }}]}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  exec: {command: [python, -m, bedplate_workers.alive, --max-age-seconds, {{ int .seconds | quote }}]}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 3
{{- end -}}

{{/* Whether an autoscaler owns the replicas: "true" or "". (dict "root" $ "component" "api") */}}
{{- define "bedplate.autoscaled" -}}
{{- if ne .root.Values.autoscaling.engine "none" -}}true{{- end -}}
{{- end -}}

{{/* OpenMP counts the node's cores; a container may use as many as it asked for. */}}
{{- define "bedplate.threads" -}}
OMP_NUM_THREADS: {valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: "1"}}}
{{- end -}}

{{/* How a service takes its leave once it is told to stop. (.Values.api.shutdown) */}}
{{- define "bedplate.drain" -}}
BEDPLATE_DRAIN_SECONDS: {value: {{ int .drainSeconds | quote }}}
{{- end -}}

{{/* The file that a process touches to show that it lives. ("worker") */}}
{{- define "bedplate.heartbeat" -}}
BEDPLATE_HEARTBEAT_FILE: {value: /tmp/{{ . }}-heartbeat}
{{- end -}}
