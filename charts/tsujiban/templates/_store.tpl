{{/* Where a service keeps what it knows: bucket and database. Called as tsujiban.service is. */}}

{{/* Arguments for the S3 storage. */}}
{{- define "tsujiban.s3Arguments" -}}
{{- with .root.Values.s3 -}}
{{- with .endpoint -}}
- --s3-endpoint={{ . }}
{{ end -}}
- --s3-region={{ .region }}
- --s3-bucket={{ $.bucket }}
- --s3-allowed-regions={{ join "," .allowedRegions }}
- --s3-credentials-dir=/etc/tsujiban/s3
{{- if or .caSecret .caConfigMap }}
- --s3-ca-file=/etc/tsujiban/s3-ca/ca.crt
{{- end }}
{{- if .pathStyle }}
- --s3-path-style
{{- end }}
{{- end }}
{{- end }}

{{/* Arguments for the database; nothing without a url. */}}
{{- define "tsujiban.databaseArguments" -}}
{{- if .database.url -}}
{{ include "tsujiban.databaseAddress" . }}
- --database-connections={{ .database.connections }}
{{- if .database.passwordSecret }}
- --database-password-file=/etc/tsujiban/database/password
{{- end }}
{{- end }}
{{- end }}

{{/* Where PostgreSQL is, and whom it is recognised by. */}}
{{- define "tsujiban.databaseAddress" -}}
- --database-url={{ .database.url }}
{{- if include "tsujiban.databaseAuthority" . }}
- --database-ca-file=/etc/tsujiban/database-ca/ca.crt
{{- end }}
{{- end }}

{{- define "tsujiban.databaseAuthority" -}}
{{ or .root.Values.database.caSecret .root.Values.database.caConfigMap }}
{{- end }}

{{- define "tsujiban.databaseAuthorityMount" -}}
{{- if include "tsujiban.databaseAuthority" . }}
- {name: database-ca, mountPath: /etc/tsujiban/database-ca, readOnly: true}
{{- end }}
{{- end }}

{{/*
PostgreSQL: the init container that brings the tables to the image's version, as the role that owns them. It alone has that role's password; the service
has rights on rows. Several pods that start at the same time take turns.
*/}}
{{- define "tsujiban.migration" -}}
{{- if .database.url }}
initContainers:
- name: migrate
  image: {{ include "tsujiban.image" (dict "root" .root "image" .image) }}
  imagePullPolicy: {{ .image.pullPolicy }}
  args:
  - migrate
  {{- include "tsujiban.databaseAddress" . | nindent 2 }}
  - --database-owner={{ .database.owner }}
  {{- if .database.ownerPasswordSecret }}
  - --database-owner-password-file=/etc/tsujiban/database-owner/password
  {{- end }}
  - --log-level={{ .root.Values.logLevel }}
  resources:
    requests: {cpu: 50m, memory: 32Mi, ephemeral-storage: 16Mi}
    limits: {cpu: "1", memory: 128Mi, ephemeral-storage: 64Mi}
  securityContext: {{- include "tsujiban.containerSecurity" . | nindent 4 }}
  {{- $mounts := include "tsujiban.migrationMounts" . }}
  {{- with $mounts }}
  volumeMounts:
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
PostgreSQL: asks before an upgrade or a rollback whether the version that comes may use the tables. While it is refused nothing has changed yet: the pods
that run go on, also of a service with one pod, which Kubernetes stops before it starts its successor. Where no hooks run, `migrate` says the same.
*/}}
{{- define "tsujiban.tablesCheck" -}}
{{- $component := printf "%s-tables" .component }}
{{- $labels := include "tsujiban.labels" (dict "root" .root "component" $component) }}
{{- $image := get .root.Values.images .component -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: tsujiban-{{ $component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
  annotations:
    helm.sh/hook: pre-upgrade,pre-rollback
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  backoffLimit: 0
  # with the time in which the image is pulled
  activeDeadlineSeconds: 290
  template:
    metadata:
      labels: {{- $labels | nindent 8 }}
      annotations:
        {{- include "tsujiban.byDesign" (dict "also" list) | nindent 8 }}
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- include "tsujiban.pullSecrets" .root | nindent 6 }}
      {{- with .root.Values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext: {{- include "tsujiban.podSecurity" . | nindent 8 }}
      containers:
      - name: check-tables
        image: {{ include "tsujiban.image" (dict "root" .root "image" $image) }}
        imagePullPolicy: {{ $image.pullPolicy }}
        args:
        - check-tables
        {{- include "tsujiban.databaseArguments" . | nindent 8 }}
        - --log-level={{ .root.Values.logLevel }}
        resources:
          requests: {cpu: 10m, memory: 32Mi, ephemeral-storage: 16Mi}
          limits: {cpu: 500m, memory: 64Mi, ephemeral-storage: 64Mi}
        securityContext: {{- include "tsujiban.containerSecurity" . | nindent 10 }}
        {{- $mounts := include "tsujiban.databaseMounts" . }}
        {{- with $mounts }}
        volumeMounts:
        {{- . | nindent 8 }}
        {{- end }}
      {{- $volumes := include "tsujiban.databaseVolumes" . }}
      {{- with $volumes }}
      volumes:
      {{- . | nindent 6 }}
      {{- end }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: tsujiban-{{ $component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "tsujiban.labels" (dict "root" .root "component" "network") | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "tsujiban.selector" (dict "root" .root "component" $component) | nindent 6 }}
  policyTypes: [Ingress, Egress]
  egress:
  {{- include "tsujiban.toDatabase" .root | nindent 2 }}
{{- end }}

{{/* What the service's role needs to connect. */}}
{{- define "tsujiban.databaseMounts" -}}
{{- if .database.passwordSecret }}
- {name: database, mountPath: /etc/tsujiban/database, readOnly: true}
{{- end }}
{{- include "tsujiban.databaseAuthorityMount" . }}
{{- end }}

{{- define "tsujiban.databaseVolumes" -}}
{{- with .database.passwordSecret }}
- name: database
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: password, path: password}]}
{{- end }}
{{- include "tsujiban.caVolume" (dict "name" "database-ca" "from" .root.Values.database) }}
{{- end }}

{{- define "tsujiban.migrationMounts" -}}
{{- if .database.ownerPasswordSecret }}
- {name: database-owner, mountPath: /etc/tsujiban/database-owner, readOnly: true}
{{- end }}
{{- include "tsujiban.databaseAuthorityMount" . }}
{{- end }}

{{/* What is mounted for both. */}}
{{- define "tsujiban.storeMounts" -}}
- {name: s3, mountPath: /etc/tsujiban/s3, readOnly: true}
{{- if or .root.Values.s3.caSecret .root.Values.s3.caConfigMap }}
- {name: s3-ca, mountPath: /etc/tsujiban/s3-ca, readOnly: true}
{{- end }}
{{- if .database.url }}
{{- include "tsujiban.databaseMounts" . }}
{{- end }}
{{- end }}

{{/* The volumes for these. */}}
{{- define "tsujiban.storeVolumes" -}}
- name: s3
  secret: {secretName: {{ .credentials }}, defaultMode: 0440}
{{- include "tsujiban.caVolume" (dict "name" "s3-ca" "from" .root.Values.s3) }}
{{- if .database.url }}
{{- include "tsujiban.databaseVolumes" . }}
{{- with .database.ownerPasswordSecret }}
- name: database-owner
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: password, path: password}]}
{{- end }}
{{- end }}
{{- end }}

{{/* A volume with an authority. Call with (dict "name" "x-ca" "from" .Values.x). */}}
{{- define "tsujiban.caVolume" -}}
{{- if .from.caSecret }}
- name: {{ .name }}
  secret: {secretName: {{ .from.caSecret }}, defaultMode: 0440, items: [{key: ca.crt, path: ca.crt}]}
{{- else if .from.caConfigMap }}
- name: {{ .name }}
  configMap: {name: {{ .from.caConfigMap }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end }}
