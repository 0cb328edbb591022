{{/* Names, labels and images. */}}

{{- define "bedplate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "bedplate.serviceAccountName" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else -}}
{{- ternary (include "bedplate.fullname" .) "default" .Values.serviceAccount.create -}}
{{- end -}}
{{- end -}}

{{/* What never changes of a component: fit for selectors. (dict "root" $ "component" "api") */}}
{{- define "bedplate.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. (dict "root" $ "component" "api") */}}
{{- define "bedplate.labels" -}}
{{ include "bedplate.selector" . }}
app.kubernetes.io/part-of: bedplate
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{/* One of the four images; a digest wins over the tag. (dict "root" $ "image" "api") */}}
{{- define "bedplate.image" -}}
{{- $image := .root.Values.image -}}
{{- $path := printf "%s-%s" $image.repository .image -}}
{{- if $image.registry -}}{{- $path = printf "%s/%s" (trimSuffix "/" $image.registry) $path -}}{{- end -}}
{{- $digest := get $image.digests .image -}}
{{- if $digest -}}
{{- printf "%s@%s" $path $digest -}}
{{- else -}}
{{- printf "%s:%s" $path (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The image of a bundled server. (.Values.database.bundled.image) */}}
{{- define "bedplate.bundledImage" -}}
{{- if .digest -}}{{- printf "%s@%s" .repository .digest -}}{{- else -}}{{- printf "%s:%s" .repository .tag -}}{{- end -}}
{{- end -}}

{{/* A service's name as every pod of the cluster resolves it. (dict "root" $ "name" "api") */}}
{{- define "bedplate.host" -}}
{{- printf "%s-%s.%s.svc" (include "bedplate.fullname" .root) .name .root.Release.Namespace -}}
{{- end -}}
