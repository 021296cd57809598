{{/* Peers of NetworkPolicies: rules of `egress`, and peers in them. */}}

{{- define "tsujiban.toApiserver" -}}
- to:
  {{- range .Values.network.apiserverCIDRs }}
  - ipBlock: {cidr: {{ . }}}
  {{- end }}
  ports:
  {{- range .Values.network.apiserverPorts }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end }}

{{- define "tsujiban.toOtlp" -}}
{{- if .Values.otlpEndpoint }}
- to:
  {{- with .Values.network.otlp.namespace }}
  - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
  {{- end }}
  {{- range .Values.network.otlp.cidrs }}
  - ipBlock: {cidr: {{ . }}}
  {{- end }}
  ports: [{protocol: TCP, port: {{ .Values.network.otlp.port }}}]
{{- end }}
{{- end }}

{{- define "tsujiban.toS3" -}}
- to:
  {{- range .Values.s3.egressCIDRs }}
  - ipBlock: {cidr: {{ . }}}
  {{- end }}
  ports: [{protocol: TCP, port: {{ .Values.s3.egressPort }}}]
{{- end }}

{{- define "tsujiban.toDatabase" -}}
- to:
  {{- range .Values.database.egressCIDRs }}
  - ipBlock: {cidr: {{ . }}}
  {{- end }}
  {{- with .Values.database.namespace }}
  - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
    {{- with $.Values.database.podLabels }}
    podSelector:
      matchLabels: {{- toYaml . | nindent 8 }}
    {{- end }}
  {{- end }}
  ports: [{protocol: TCP, port: {{ .Values.database.egressPort }}}]
{{- end }}

{{/* The way to services; nothing without any. Call with (dict "root" . "services" (list "backup")). */}}
{{- define "tsujiban.toServices" -}}
{{- if .services }}
- to:
  {{- range .services }}
  {{- include "tsujiban.componentPeer" (dict "root" $.root "component" .) | nindent 2 }}
  {{- end }}
  ports: [{protocol: TCP, port: 8443}]
{{- end }}
{{- end }}

{{/* The pods of a component of ours. Call with (dict "root" . "component" "x"). */}}
{{- define "tsujiban.componentPeer" -}}
- podSelector:
    matchLabels: {{- include "tsujiban.selector" . | nindent 6 }}
{{- end }}
