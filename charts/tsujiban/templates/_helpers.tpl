{{/* Labels of every object. Call with (dict "root" . "component" "operator"). */}}
{{- define "tsujiban.labels" -}}
{{ include "tsujiban.selector" . }}
app.kubernetes.io/part-of: tsujiban
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "tsujiban.selector" -}}
app.kubernetes.io/name: tsujiban
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The name of an image: by digest when there is one. Call with (dict "root" . "image" .Values.images.x). */}}
{{- define "tsujiban.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "tsujiban.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the restricted Pod Security level asks for, and a user of our own. */}}
{{- define "tsujiban.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tsujiban.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Ranges in which no device stands on any cluster (the list NEVER in crates/core/src/address.rs), and this cluster's own: a CEL list. */}}
{{- define "tsujiban.forbidden" -}}
{{- $never := list "0.0.0.0/8" "127.0.0.0/8" "169.254.0.0/16" "224.0.0.0/4" "240.0.0.0/4" "::/128" "::1/128" "fe80::/10" "fd00:ec2::254/128" "fd20:ce::254/128" "ff00::/8" -}}
[{{ range $i, $net := concat $never .Values.network.forbiddenCIDRs | uniq }}{{ if $i }}, {{ end }}'{{ $net }}'{{ end }}]
{{- end }}

{{/*
What kube-score finds and is so by design, as the annotation by which it passes over it; besides the names given as "also":
  container-image-pull-policy: images are named by digest, or by a tag that says what is inside; asking the registry again gains nothing,
  and a registry that is down would keep a pod from starting again.
*/}}
{{- define "tsujiban.byDesign" -}}
kube-score/ignore: {{ prepend .also "container-image-pull-policy" | join "," }}
{{- end }}

{{/* Our services that the edge may lead to: where they listen, under which name their certificate is theirs. */}}
{{- define "tsujiban.edgeServices" -}}
backup: {name: tsujiban-backup, port: 8443, host: tsujiban-backup.{{ .Release.Namespace }}.svc}
{{- end }}

{{- define "tsujiban.operatorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:tsujiban-operator
{{- end }}

{{/* A match condition: the request is neither the operator's nor a controller's of Kubernetes. */}}
{{- define "tsujiban.othersThanOperator" -}}
name: others-than-operator-and-controllers
expression: >-
  request.userInfo.username != '{{ include "tsujiban.operatorUser" . }}'
  && !request.userInfo.username.startsWith('system:serviceaccount:kube-system:')
  && !(request.userInfo.username in ['system:kube-controller-manager'{{ range .Values.trustedControllers }}, '{{ . }}'{{ end }}])
{{- end }}

{{/* Whether `owner`, with kind, name and namespace, is somebody whom the policies let pass, a service of ours or a group's collector. */}}
{{- define "tsujiban.privileged" -}}
owner.kind == 'ServiceAccount' ? owner.?namespace.orValue('') in ['kube-system', '{{ .Release.Namespace }}'] || (owner.?namespace.orValue('').startsWith('tn-') && owner.name == 'collector') : owner.name.startsWith('system:'){{ range .Values.trustedControllers }} || owner.name == '{{ . }}'{{ end }}
{{- end }}

{{/* The binding of a policy. Call with (dict "root" . "name" "tsujiban-x"). */}}
{{- define "tsujiban.binding" -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels: {{- include "tsujiban.labels" (dict "root" .root "component" "policy") | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end }}

{{/* What the schema cannot say. */}}
{{- define "tsujiban.check" -}}
{{- if not (has .Values.s3.region .Values.s3.allowedRegions) }}
{{- fail (printf "s3.region %s is not one of s3.allowedRegions (%s): customer data is kept in Japan (C21)" .Values.s3.region (join ", " .Values.s3.allowedRegions)) }}
{{- end }}
{{- if and .Values.otlpEndpoint (not .Values.network.otlp.namespace) (not .Values.network.otlp.cidrs) }}
{{- fail "otlpEndpoint is set, but the network is closed to it: set network.otlp.namespace or network.otlp.cidrs" }}
{{- end }}
{{- $names := list }}
{{- range .Values.staff }}
{{- if has .name $names }}{{ fail (printf "staff: %s is there twice" .name) }}{{ end }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}
