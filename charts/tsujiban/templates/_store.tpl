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
{{- if .database.passwordSecret }}
- {name: database, mountPath: /etc/tsujiban/database, readOnly: true}
{{- end }}
{{- include "tsujiban.databaseAuthorityMount" . }}
{{- end }}
{{- end }}

{{/* The volumes for these. */}}
{{- define "tsujiban.storeVolumes" -}}
- name: s3
  secret: {secretName: {{ .credentials }}, defaultMode: 0440}
{{- include "tsujiban.caVolume" (dict "name" "s3-ca" "from" .root.Values.s3) }}
{{- if .database.url }}
{{- with .database.passwordSecret }}
- name: database
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: password, path: password}]}
{{- end }}
{{- with .database.ownerPasswordSecret }}
- name: database-owner
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: password, path: password}]}
{{- end }}
{{- include "tsujiban.caVolume" (dict "name" "database-ca" "from" .root.Values.database) }}
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
