{{/* What the schema cannot say: values that do not go together, and values that are gone. Every fault is told at once. */}}

{{- define "bedplate.checks" -}}
{{- $faults := list -}}
{{- range $check := list "gone" "services" "production" "workers" "shutdown" "autoscaling" "exposure" "other" -}}
{{- range $fault := splitList "\n" (include (printf "bedplate.check.%s" $check) $) -}}
{{- with trim $fault -}}{{- $faults = append $faults (printf "- %s" .) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "\n\nThese values do not do:\n%s\n" (join "\n" $faults)) -}}
{{- end -}}
{{- end -}}

{{- define "bedplate.check.gone" -}}
{{- if hasKey .Values "beat" }}
beat: there is no Celery beat; the reconciler stands in its place: use `reconciler`
{{- end }}
{{- if hasKey .Values "registry" }}
registry: registry and store are one process: use `api`
{{- end }}
{{- if hasKey .Values "console" }}
console: there is no console yet; take it out
{{- end }}
{{- end -}}

{{- define "bedplate.check.services" -}}
{{- $values := .Values }}
{{- range $name, $keys := dict "database" (list $values.database.keys.registryUrl $values.database.keys.storeUrl) "broker" (list $values.broker.key) "objectStore" (list $values.objectStore.keys.accessKey $values.objectStore.keys.secretKey) }}
{{- $service := get $values $name }}
{{- if and (eq $service.mode "external") (not $service.existingSecret) }}
{{ $name }}.mode=external: set {{ $name }}.existingSecret to a Secret with {{ join " and " $keys }}
{{- end }}
{{- if and (eq $service.mode "bundled") $service.existingSecret }}
{{ $name }}.existingSecret: a bundled server makes its own; set {{ $name }}.mode=external or take it out
{{- end }}
{{- end }}
{{- if eq $values.objectStore.mode "external" }}
{{- if not $values.objectStore.endpoint }}
objectStore.mode=external: set objectStore.endpoint, such as https://s3.eu-central-1.amazonaws.com
{{- end }}
{{- else if $values.objectStore.endpoint }}
objectStore.endpoint: a bundled server has its own; set objectStore.mode=external or take it out
{{- end }}
{{- if and (eq $values.broker.mode "bundled") (ne $values.broker.type "redis") }}
broker.type=amqp: the bundled broker is Valkey; set broker.mode=external and broker.existingSecret, or broker.type=redis
{{- end }}
{{- if eq $values.migrations.mode "hook" }}
{{- if ne $values.database.mode "external" }}
migrations.mode=hook: the hook would wait for a database that is installed after it; set migrations.mode=job or database.mode=external
{{- end }}
{{- if ne $values.objectStore.mode "external" }}
migrations.mode=hook: the hook would wait for an object store that is installed after it; set migrations.mode=job or objectStore.mode=external
{{- end }}
{{- if not $values.admin.existingSecret }}
migrations.mode=hook: the hook would wait for a Secret that is made after it; set migrations.mode=job or admin.existingSecret
{{- end }}
{{- end }}
{{- end -}}

{{- define "bedplate.check.production" -}}
{{- $values := .Values }}
{{- if eq $values.profile "production" }}
{{- range $name := list "database" "broker" "objectStore" }}
{{- if eq (get $values $name).mode "bundled" }}
profile=production: set {{ $name }}.mode=external and {{ $name }}.existingSecret; a bundled server is for trying out
{{- end }}
{{- end }}
{{- if not $values.admin.existingSecret }}
profile=production: set admin.existingSecret to a Secret whose key {{ $values.admin.key }} holds the first administrator's token
{{- end }}
{{- if and (gt (int $values.store.replicas) 0) (not $values.store.existingSecret) }}
profile=production: set store.existingSecret to a Secret whose key {{ $values.store.key }} is what API and store nodes share
{{- end }}
{{- if $values.generatedSecrets.seed }}
profile=production: nothing is generated; take generatedSecrets.seed out
{{- end }}
{{- range $name := list "api" "inference" }}
{{- if eq $values.autoscaling.engine "none" }}
{{- if lt (int (get $values $name).replicas) 2 }}
profile=production: set {{ $name }}.replicas to 2 or more
{{- end }}
{{- else if lt (int (get $values.autoscaling $name).minReplicas) 2 }}
profile=production: set autoscaling.{{ $name }}.minReplicas to 2 or more
{{- end }}
{{- end }}
{{- /* KEDA may take all workers away: what is queued waits until it starts them again. */}}
{{- range $pool := list "cpu" "gpu" }}
{{- if (get $values.workers $pool).enabled }}
{{- if and (eq $values.autoscaling.engine "none") (lt (int (get $values.workers $pool).replicas) 2) }}
profile=production: set workers.{{ $pool }}.replicas to 2 or more, so that work goes on while one is away
{{- end }}
{{- if and (eq $values.autoscaling.engine "hpa") (lt (int (get $values.autoscaling.workers $pool).minReplicas) 2) }}
profile=production: set autoscaling.workers.{{ $pool }}.minReplicas to 2 or more, so that work goes on while one is away
{{- end }}
{{- end }}
{{- end }}
{{- if and (gt (int $values.store.replicas) 0) (lt (int $values.store.copies) 2) }}
profile=production: set store.copies to 2 or more; the shards of a node that is its only copy are unanswered while it is away
{{- end }}
{{- end }}
{{- end -}}

{{- define "bedplate.check.workers" -}}
{{- $taken := "" }}
{{- range $pool := list "cpu" "gpu" }}
{{- if (get $.Values.workers $pool).enabled }}
{{- $taken = printf "%s,%s" $taken (include "bedplate.queues" (dict "root" $ "pool" $pool)) }}
{{- end }}
{{- end }}
{{- range $queue := list "cpu" "gpu" }}
{{- if not (has $queue (splitList "," $taken)) }}
workers: nobody takes work from the queue {{ $queue }}; add it to workers.cpu.queues or enable a pool that has it
{{- end }}
{{- end }}
{{- end -}}

{{- define "bedplate.check.shutdown" -}}
{{- range $name := list "api" "inference" "store" }}
{{- $shutdown := (get $.Values $name).shutdown }}
{{- $needed := add (int $shutdown.preStopSeconds) (int $shutdown.drainSeconds) 15 }}
{{- if lt (int $shutdown.gracePeriodSeconds) (int $needed) }}
{{ $name }}.shutdown.gracePeriodSeconds: requests in flight need {{ $needed }} s (preStopSeconds + drainSeconds + 10 to answer them + 5 to close); raise it or lower the others
{{- end }}
{{- end }}
{{- end -}}

{{- define "bedplate.check.autoscaling" -}}
{{- $scaling := .Values.autoscaling }}
{{- if ne $scaling.engine "none" }}
{{- range $name, $bounds := dict "api" $scaling.api "inference" $scaling.inference "workers.cpu" $scaling.workers.cpu "workers.gpu" $scaling.workers.gpu }}
{{- if gt (int $bounds.minReplicas) (int $bounds.maxReplicas) }}
autoscaling.{{ $name }}: minReplicas {{ $bounds.minReplicas }} is more than maxReplicas {{ $bounds.maxReplicas }}; lower it or raise the other
{{- end }}
{{- if and (eq (int $bounds.minReplicas) 0) (or (not (hasPrefix "workers" $name)) (eq $scaling.engine "hpa")) }}
autoscaling.{{ $name }}.minReplicas: 0 is for workers with autoscaling.engine=keda; set 1 or more
{{- end }}
{{- end }}
{{- end }}
{{- if eq $scaling.engine "keda" }}
{{- if and (eq $scaling.keda.source "postgresql") (eq .Values.database.mode "external") (not $scaling.keda.existingSecret) }}
autoscaling.keda.source=postgresql: set autoscaling.keda.existingSecret to a Secret whose key {{ $scaling.keda.key }} is the store's database URL, postgresql://...
{{- end }}
{{- if and (eq $scaling.keda.source "prometheus") (not $scaling.keda.prometheus.serverAddress) }}
autoscaling.keda.source=prometheus: set autoscaling.keda.prometheus.serverAddress, such as http://prometheus.monitoring.svc:9090
{{- end }}
{{- end }}
{{- end -}}

{{- define "bedplate.check.exposure" -}}
{{- range $kind := list "ingress" "gateway" }}
{{- $exposed := get $.Values.exposure $kind }}
{{- if and $exposed.enabled (not (or $exposed.apiHost $exposed.inferenceHost)) }}
exposure.{{ $kind }}.enabled: set exposure.{{ $kind }}.apiHost, inferenceHost, or both
{{- end }}
{{- if and $exposed.enabled $exposed.apiHost (eq $exposed.apiHost $exposed.inferenceHost) }}
exposure.{{ $kind }}: API and inference share routes; give exposure.{{ $kind }}.apiHost and inferenceHost two names
{{- end }}
{{- end }}
{{- if and .Values.exposure.gateway.enabled (not .Values.exposure.gateway.parentRefs) }}
exposure.gateway.enabled: set exposure.gateway.parentRefs to the Gateway that the routes belong to
{{- end }}
{{- end -}}

{{- define "bedplate.check.other" -}}
{{- range $image, $digest := .Values.image.digests }}
{{- if not (has $image (list "api" "inference" "worker-cpu" "worker-gpu")) }}
image.digests.{{ $image }}: there is no such image; the names are api, inference, worker-cpu and worker-gpu
{{- end }}
{{- end }}
{{- if and .Values.networkPolicy.egress.enabled (not .Values.networkPolicy.egress.to) (or (eq .Values.database.mode "external") (eq .Values.broker.mode "external") (eq .Values.objectStore.mode "external")) }}
networkPolicy.egress.enabled: nothing would reach the external services; set networkPolicy.egress.to to rules that allow it
{{- end }}
{{- if and .Values.networkPolicy.enabled .Values.networkPolicy.from .Values.monitoring.serviceMonitor.enabled (not .Values.networkPolicy.metricsFrom) }}
networkPolicy.from: it keeps Prometheus out of API and inference; set networkPolicy.metricsFrom to where Prometheus runs
{{- end }}
{{- if and .Values.generatedSecrets.seed (lt (len .Values.generatedSecrets.seed) 32) }}
generatedSecrets.seed: all secrets are derived from it; give it 32 random characters or more
{{- end }}
{{- end -}}
