{{/* What the schema cannot say. */}}
{{- define "tsujiban.check" -}}
{{- if not (has .Values.s3.region .Values.s3.allowedRegions) }}
{{- fail (printf "s3.region %s is not one of s3.allowedRegions (%s): customer data is kept in Japan (C21)" .Values.s3.region (join ", " .Values.s3.allowedRegions)) }}
{{- end }}
{{- if and .Values.otlpEndpoint (not .Values.network.otlp.namespace) (not .Values.network.otlp.cidrs) }}
{{- fail "otlpEndpoint is set, but the network is closed to it: set network.otlp.namespace or network.otlp.cidrs" }}
{{- end }}
{{- include "tsujiban.checkNames" . }}
{{- range include "tsujiban.services" . | fromJsonArray }}
{{- $values := get $.Values .name }}
{{- if .database }}
{{- $database := get $.Values.database .name }}
{{- if and (eq $.Values.mode "production") (not $database.url) }}
{{- fail (printf "mode production, but database.%s.url is empty: SQLite on one volume is for trials; set it to a PostgreSQL of the %s service's own, postgres://USER@HOST/DATABASE, and database.%s.passwordSecret (C14, C23)" .name .name .name) }}
{{- end }}
{{- if and $database.url (not $.Values.database.egressCIDRs) (not $.Values.database.namespace) }}
{{- fail (printf "database.%s.url is set, but the network is closed to it: set database.egressCIDRs or database.namespace" .name) }}
{{- end }}
{{- if and $database.url (not $database.owner) }}
{{- fail (printf "database.%s.url is set, but database.%s.owner is empty: name the role that owns the tables, such as tsujiban_%s_owner; postgresql.sql in this chart makes it" .name .name .name) }}
{{- end }}
{{- if and $database.url (contains (printf "//%s@" $database.owner) $database.url) }}
{{- fail (printf "database.%s.owner is the service's own role: the tables must belong to another one, or the service could change what guards them; postgresql.sql in this chart makes both" .name) }}
{{- end }}
{{- if and $database.url (eq $.Values.mode "production") (not (and $database.passwordSecret $database.ownerPasswordSecret)) }}
{{- fail (printf "mode production, but database.%s.passwordSecret or database.%s.ownerPasswordSecret is empty: name a Secret with the key password each" .name .name) }}
{{- end }}
{{- if and (gt (int $values.replicas) 1) (not $database.url) }}
{{- fail (printf "%s.replicas is above 1, but SQLite has one writer: set database.%s.url to a PostgreSQL, or %s.replicas to 1" .name .name .name) }}
{{- end }}
{{- end }}
{{- if and .spool $.Values.audit.enabled }}
{{- $spool := include "tsujiban.mebibytes" $values.spool.size | int64 }}
{{- $volume := include "tsujiban.mebibytes" $values.persistence.size | int64 }}
{{- if gt (mul $spool 2) $volume }}
{{- fail (printf "%s.spool.size %s is more than half of %s.persistence.size %s, which the database needs too: make it smaller" .name $values.spool.size .name $values.persistence.size) }}
{{- end }}
{{- end }}
{{- if has "check" .own }}{{ include (printf "tsujiban.%s.check" .name) $ }}{{ end }}
{{- end }}
{{- $names := list }}
{{- range .Values.staff }}
{{- if has .name $names }}{{ fail (printf "staff: %s is there twice" .name) }}{{ end }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}

{{/* The schema takes any name for a service's blocks: those that are no service's are refused here. */}}
{{- define "tsujiban.checkNames" -}}
{{- $names := list }}
{{- range (.Files.Get "services.yaml" | fromYaml).services }}{{ $names = append $names .name }}{{ end }}
{{- $images := concat $names (list "operator" "collector" "pullSecrets") }}
{{- range $name, $_ := .Values.images }}
{{- if not (has $name $images) }}{{ fail (printf "images.%s: there is no program %s; remove it" $name $name) }}{{ end }}
{{- end }}
{{- range $name, $block := .Values.database }}
{{- if and (kindIs "map" $block) (hasKey $block "connections") (not (has $name $names)) }}
{{- fail (printf "database.%s: there is no service %s; remove it" $name $name) }}
{{- end }}
{{- end }}
{{- range $name, $block := .Values }}
{{- if and (kindIs "map" $block) (hasKey $block "persistence") (not (has $name $names)) }}
{{- fail (printf "%s: there is no service %s; remove it" $name $name) }}
{{- end }}
{{- end }}
{{- end }}
