{{/* Which settings the processes get, and from where. */}}

{{/* A value as text. Helm reads numbers as floats, of which toString makes 1.2345678e+07. */}}
{{- define "bedplate.text" -}}
{{- if kindIs "string" . -}}{{- . -}}{{- else -}}{{- toJson . -}}{{- end -}}
{{- end -}}

{{/* How clients reach a service. (dict "root" $ "name" "api" "port" 8700) */}}
{{- define "bedplate.url" -}}
{{- $exposure := .root.Values.exposure -}}
{{- $host := printf "%sHost" .name -}}
{{- $given := get $exposure (printf "%sUrl" .name) -}}
{{- if $given -}}
{{- trimSuffix "/" $given -}}
{{- else if and $exposure.ingress.enabled (get $exposure.ingress $host) -}}
{{- printf "%s://%s" (ternary "https" "http" (ne $exposure.ingress.tlsSecret "")) (get $exposure.ingress $host) -}}
{{- else if and $exposure.gateway.enabled (get $exposure.gateway $host) -}}
{{- printf "%s://%s" (ternary "https" "http" $exposure.gateway.tls) (get $exposure.gateway $host) -}}
{{- else -}}
{{- printf "http://%s:%d" (include "bedplate.host" .) (int .port) -}}
{{- end -}}
{{- end -}}

{{- define "bedplate.objectsUrl" -}}
{{- $store := .Values.objectStore -}}
{{- $endpoint := ternary (printf "http://%s:8333" (include "bedplate.host" (dict "root" . "name" "s3"))) $store.endpoint (eq $store.mode "bundled") -}}
{{- $path := $store.bucket -}}
{{- if $store.prefix -}}{{- $path = printf "%s/%s" $path (trimAll "/" $store.prefix) -}}{{- end -}}
{{- printf "s3://%s?endpoint=%s" $path $endpoint -}}
{{- end -}}

{{/* What is no secret: the data of the ConfigMap, as YAML. */}}
{{- define "bedplate.settings" -}}
{{- $settings := dict
  "BEDPLATE_OBJECTS_URL" (include "bedplate.objectsUrl" .)
  "BEDPLATE_CACHE_DIR" "/var/cache/bedplate"
  "BEDPLATE_SPOOL_DIR" "/var/lib/bedplate/spool"
  "BEDPLATE_HOST" "0.0.0.0"
  "BEDPLATE_PORT" "8700"
  "BEDPLATE_INFERENCE_HOST" "0.0.0.0"
  "BEDPLATE_INFERENCE_PORT" "8701"
  "BEDPLATE_PUBLIC_URL" (include "bedplate.url" (dict "root" . "name" "api" "port" .Values.api.service.port))
  "BEDPLATE_INFERENCE_URL" (include "bedplate.url" (dict "root" . "name" "inference" "port" .Values.inference.service.port))
-}}
{{- if eq .Values.broker.type "redis" -}}
{{- $_ := set $settings "BEDPLATE_VISIBILITY_TIMEOUT_SECONDS" (include "bedplate.text" .Values.broker.visibilityTimeout) -}}
{{- else -}}
{{- $_ := set $settings "BEDPLATE_QUEUE_TYPE" .Values.broker.queueType -}}
{{- end -}}
{{- if .Values.objectStore.region -}}
{{- $_ := set $settings "BEDPLATE_S3_REGION" .Values.objectStore.region -}}
{{- end -}}
{{- range $name, $value := .Values.settings -}}
{{- if hasKey $settings $name -}}
{{- fail (printf "settings.%s: the chart decides it by other values; take it out of `settings` (README.md names the value)" $name) -}}
{{- end -}}
{{- $_ := set $settings $name (include "bedplate.text" $value) -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* The Secret of a credential: an existing one, or the one that secrets.yaml makes.
     (dict "root" $ "for" "database" "existing" "name") */}}
{{- define "bedplate.secretName" -}}
{{- default (printf "%s-%s" (include "bedplate.fullname" .root) .for) .existing -}}
{{- end -}}

{{/* Entries of a container's environment that come from Secrets, as a YAML mapping by name. */}}
{{- define "bedplate.secretSettings" -}}
{{- $values := .Values -}}
{{- $database := include "bedplate.secretName" (dict "root" . "for" "database" "existing" $values.database.existingSecret) -}}
{{- $broker := include "bedplate.secretName" (dict "root" . "for" "broker" "existing" $values.broker.existingSecret) -}}
{{- $objects := include "bedplate.secretName" (dict "root" . "for" "s3" "existing" $values.objectStore.existingSecret) -}}
BEDPLATE_REGISTRY_DATABASE_URL: {valueFrom: {secretKeyRef: {name: {{ $database | quote }}, key: {{ $values.database.keys.registryUrl | quote }}}}}
BEDPLATE_STORE_DATABASE_URL: {valueFrom: {secretKeyRef: {name: {{ $database | quote }}, key: {{ $values.database.keys.storeUrl | quote }}}}}
BEDPLATE_BROKER_URL: {valueFrom: {secretKeyRef: {name: {{ $broker | quote }}, key: {{ $values.broker.key | quote }}}}}
BEDPLATE_S3_ACCESS_KEY: {valueFrom: {secretKeyRef: {name: {{ $objects | quote }}, key: {{ $values.objectStore.keys.accessKey | quote }}}}}
BEDPLATE_S3_SECRET_KEY: {valueFrom: {secretKeyRef: {name: {{ $objects | quote }}, key: {{ $values.objectStore.keys.secretKey | quote }}}}}
{{- if gt (int $values.store.replicas) 0 }}
{{- $shards := include "bedplate.secretName" (dict "root" . "for" "shards" "existing" $values.store.existingSecret) }}
BEDPLATE_SHARD_SECRET: {valueFrom: {secretKeyRef: {name: {{ $shards | quote }}, key: {{ $values.store.key | quote }}}}}
{{- end }}
{{- end -}}

{{/* The first administrator's token, likewise. */}}
{{- define "bedplate.adminToken" -}}
{{- $name := include "bedplate.secretName" (dict "root" . "for" "admin" "existing" .Values.admin.existingSecret) -}}
valueFrom: {secretKeyRef: {name: {{ $name | quote }}, key: {{ .Values.admin.key | quote }}}}
{{- end -}}

{{/* A container's `env`. Names are unique; a name that the chart sets itself is refused.
     (dict "root" $ "own" (YAML mapping by name) "extra" .Values.api.extraEnv) */}}
{{- define "bedplate.env" -}}
{{- $entries := fromYaml (include "bedplate.secretSettings" .root) -}}
{{- range $name, $entry := fromYaml (default "" .own) -}}{{- $_ := set $entries $name $entry -}}{{- end -}}
{{- $decided := fromYaml (include "bedplate.settings" .root) -}}
{{- range $name, $entry := mergeOverwrite (dict) .root.Values.podDefaults.extraEnv (default (dict) .extra) -}}
{{- if or (hasKey $entries $name) (and (hasKey $decided $name) (not (hasKey $.root.Values.settings $name))) -}}
{{- fail (printf "extraEnv.%s: the chart sets it itself; take it out of extraEnv (README.md names the value that decides it)" $name) -}}
{{- end -}}
{{- $_ := set $entries $name (ternary $entry (dict "value" (include "bedplate.text" $entry)) (kindIs "map" $entry)) -}}
{{- end -}}
env:
{{- /* What comes from the pod itself stands first: values after it may refer to it. */}}
{{- range $first := list true false }}
{{- range $name, $entry := $entries }}
{{- if eq $first (hasKey (default (dict) $entry.valueFrom) "fieldRef") }}
  - name: {{ $name }}
    {{- toYaml $entry | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
