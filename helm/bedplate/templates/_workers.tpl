{{/* Which queues the pools take, for templates, checks and autoscalers. */}}

{{/* The queues of a pool, separated by commas. (dict "root" $ "pool" "cpu") */}}
{{- define "bedplate.queues" -}}
{{- $workers := .root.Values.workers -}}
{{- $queues := (get $workers .pool).queues -}}
{{- if and (not $queues) (eq .pool "cpu") -}}
{{- $queues = ternary (list "cpu") (list "cpu" "gpu") $workers.gpu.enabled -}}
{{- end -}}
{{- join "," $queues -}}
{{- end -}}

{{/* Partitions of these queues that wait or are worked on, as the job ledger has them. Jobs of kind "embed" go to the
     queue gpu, all others to cpu. ("cpu,gpu") */}}
{{- define "bedplate.openPartitions" -}}
SELECT count(*) FROM job_partitions p JOIN jobs j ON j.id = p.job_id WHERE (p.state = 'leased' OR (p.state = 'due' AND p.due_at <= now()))
{{- if eq . "gpu" }} AND j.kind = 'embed'{{ else if eq . "cpu" }} AND j.kind <> 'embed'{{ end }}
{{- end -}}
