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

{{/* The rows in services.yaml of the services that this installation has, as JSON. */}}
{{- define "tsujiban.services" -}}
{{- $services := list }}
{{- range required "services.yaml cannot be read" (.Files.Get "services.yaml" | fromYaml).services }}
{{- if or (not .optional) (get $.Values .name).enabled }}{{ $services = append $services . }}{{ end }}
{{- end }}
{{- toJson $services }}
{{- end }}

{{/* Their names, as JSON. */}}
{{- define "tsujiban.serviceNames" -}}
{{- $names := list }}
{{- range include "tsujiban.services" . | fromJsonArray }}{{ $names = append $names .name }}{{ end }}
{{- toJson $names }}
{{- end }}

{{/* The names of those that a workload of ours calls, as JSON. Call with (dict "root" . "caller" "operator"). */}}
{{- define "tsujiban.calledBy" -}}
{{- $called := list }}
{{- range include "tsujiban.services" .root | fromJsonArray }}
{{- if has $.caller .callers }}{{ $called = append $called .name }}{{ end }}
{{- end }}
{{- toJson $called }}
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

{{/* A size such as 4Gi in MiB. */}}
{{- define "tsujiban.mebibytes" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- if hasSuffix "Ti" . }}{{ mul $number 1048576 }}{{ else if hasSuffix "Gi" . }}{{ mul $number 1024 }}{{ else }}{{ $number }}{{ end -}}
{{- end }}

{{/*
A folder for temporary files, which the root does not have. Memory, and so within the memory limit: what a database spills may hold wrapped keys,
which must never lie on a node's disk.
*/}}
{{- define "tsujiban.temporaryEnvironment" -}}
- {name: TMPDIR, value: /tmp}
- {name: SQLITE_TMPDIR, value: /tmp}
{{- end }}

{{- define "tsujiban.temporaryMount" -}}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "tsujiban.temporaryVolume" -}}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end }}

{{/* The volume with a token that one service of ours takes and nobody else, the apiserver included. Call with its short name. */}}
{{- define "tsujiban.tokenVolume" -}}
- name: {{ . }}-token
  projected:
    sources:
    - serviceAccountToken: {path: token, audience: {{ . }}.tsujiban.dev, expirationSeconds: 3600}
{{- end }}

{{- define "tsujiban.tokenMount" -}}
- {name: {{ . }}-token, mountPath: /var/run/secrets/tsujiban.dev/{{ . }}, readOnly: true}
{{- end }}

{{/* Keeps replicas apart. Call with (dict "root" . "component" "x" "spread" .Values.x.topologySpread). */}}
{{- define "tsujiban.spread" -}}
topologySpreadConstraints:
{{- range .spread.keys }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: {{ $.spread.whenUnsatisfiable }}
  labelSelector:
    matchLabels: {{- include "tsujiban.selector" $ | nindent 6 }}
  {{- with $.labelKey }}
  # the pods of the version that is being replaced do not count
  matchLabelKeys: [{{ . }}]
  {{- end }}
{{- end }}
{{- end }}

{{/* What scrapes a component. Call with (dict "root" . "component" "x" "port" "name"). */}}
{{- define "tsujiban.podMonitor" -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: tsujiban-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "tsujiban.labels" . | nindent 4 }}
    {{- with .root.Values.metrics.podMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels: {{- include "tsujiban.selector" . | nindent 6 }}
  podMetricsEndpoints:
  - {port: {{ .port }}, path: /metrics, interval: {{ .root.Values.metrics.podMonitor.interval }}}
{{- end }}

{{/* Whether the cluster can stamp who changed what: MutatingAdmissionPolicy, Kubernetes 1.36 and later. */}}
{{- define "tsujiban.stamps" -}}
{{- if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" }}yes{{ end }}
{{- end }}

{{/* Our services that the edge may lead to: where they listen, under which name their certificate is theirs. */}}
{{- define "tsujiban.edgeServices" -}}
{{- range include "tsujiban.services" . | fromJsonArray }}
{{- if .publicPort }}
{{ .name }}: {name: tsujiban-{{ .name }}, port: {{ .publicPort }}, host: tsujiban-{{ .name }}.{{ $.Release.Namespace }}.svc}
{{- end }}
{{- end }}
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
