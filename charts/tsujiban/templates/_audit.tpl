{{/* What only the audit service has. */}}

{{- define "tsujiban.audit.arguments" -}}
- --origin-domain={{ .values.originDomain }}
{{- end }}

{{- define "tsujiban.audit.check" -}}
{{- range include "tsujiban.services" . | fromJsonArray }}
{{- if and (ne .name "audit") .database $.Values.database.audit.url (eq $.Values.database.audit.url (get $.Values.database .name).url) }}
{{- fail (printf "database.audit.url is the %s service's: a history that its writers could alter proves nothing (C5); give the audit service a database and a role of its own" .name) }}
{{- end }}
{{- end }}
{{- if eq .Values.audit.s3.bucket .Values.s3.bucket }}
{{- fail "audit.s3.bucket is s3.bucket: the audit service needs a bucket of its own, whose objects no other credential can touch (C5)" }}
{{- end }}
{{- if eq .Values.audit.s3.credentialsSecret .Values.s3.credentialsSecret }}
{{- fail "audit.s3.credentialsSecret is s3.credentialsSecret: the audit service needs credentials of its own, which may put, list and read and not delete (C5)" }}
{{- end }}
{{- end }}
