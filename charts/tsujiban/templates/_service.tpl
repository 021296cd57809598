{{/*
Everything of one service. Call with a dict of
  root                  the chart's root
  row                   the service's row in services.yaml
  component             its name, which stands in names and in the label app.kubernetes.io/component
  values                its block of the values
  database              its block in values `database`; empty for a service without a database
  bucket, credentials   its bucket, and the Secret with the credentials for it
The rows say of a service:
  name, callers         who calls it: `operator`, `collector` or another service. `helm test` calls all
  database, spool       whether it has a database, and a spool of operations that the history has not taken yet; such a service calls `audit`
  optional              whether it is left out by <name>.enabled
  publicPort            the port to which the edge may lead, for a service that people call
  own                   which named templates it has in _<name>.tpl, since Helm cannot ask whether one is there: `arguments` (flags that no other
                        service has; called with the dict above) and `check` (what the schema cannot say of its values; called with the root)
`replicas` and `topologySpread` in its values make it a service of several pods, `s3` one with a bucket of its own.
*/}}
{{- define "tsujiban.service" -}}
{{- $labels := include "tsujiban.labels" . }}
{{- $selector := include "tsujiban.selector" . }}
{{- $name := printf "tsujiban-%s" .component }}
{{- $namespace := .root.Release.Namespace -}}
---
{{ include "tsujiban.service.statefulSet" . }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  selector: {{- $selector | nindent 4 }}
  ports:
  - {name: grpc, port: 8443, targetPort: grpc}
---
# It leads to a pod also while that is not ready: the pod then says why, and what it holds can still be read.
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}-direct
  namespace: {{ $namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{- $selector | nindent 4 }}
  ports:
  - {name: grpc, port: 8443, targetPort: grpc}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels: {{- $labels | nindent 4 }}
automountServiceAccountToken: false
{{- /* for a single pod it could only keep nodes from being drained */}}
{{- if gt (int .values.replicas) 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- $selector | nindent 6 }}
{{- end }}
---
# It asks who is calling and what staff may; it reads and writes nothing else.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
rules:
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
- {apiGroups: [authorization.k8s.io], resources: [subjectaccessreviews], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $name }}}
subjects:
- {kind: ServiceAccount, name: {{ $name }}, namespace: {{ $namespace }}}
---
{{ include "tsujiban.service.networkPolicy" . }}
{{- if .root.Values.metrics.podMonitor.enabled }}
---
{{ include "tsujiban.podMonitor" (dict "root" .root "component" .component "port" "metrics") }}
{{- end }}
{{- end }}

{{- define "tsujiban.service.statefulSet" -}}
{{- $labels := include "tsujiban.labels" . }}
{{- $values := .values }}
{{- $image := get .root.Values.images .component }}
{{- $several := hasKey $values "replicas" }}
{{- $called := include "tsujiban.calledBy" (dict "root" .root "caller" .component) | fromJsonArray -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: tsujiban-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
  annotations:
    # serviceName is no headless Service: nobody looks for one pod among several by its name, and it cannot be changed by an upgrade;
    # replicas are kept apart by topologySpreadConstraints
    {{- include "tsujiban.byDesign" (dict "also" (concat (list "statefulset-has-servicename") ($several | ternary (list "statefulset-has-host-podantiaffinity") list))) | nindent 4 }}
spec:
  # With SQLite one, which has one writer; a service whose values have no replicas is one with PostgreSQL too. The volumes stay whatever
  # happens to the StatefulSet: they hold the database, or the spool alone.
  replicas: {{ $values.replicas | default 1 }}
  serviceName: tsujiban-{{ .component }}
  {{- if $several }}
  podManagementPolicy: Parallel
  {{- end }}
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, whenScaled: Retain}
  selector:
    matchLabels: {{- include "tsujiban.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- $labels | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ .component }}
    spec:
      serviceAccountName: tsujiban-{{ .component }}
      automountServiceAccountToken: true
      enableServiceLinks: false
      {{- include "tsujiban.pullSecrets" .root | nindent 6 }}
      {{- with .root.Values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      terminationGracePeriodSeconds: 60
      securityContext: {{- include "tsujiban.podSecurity" . | nindent 8 }}
      {{- if gt (int $values.replicas) 1 }}
      {{- include "tsujiban.spread" (dict "root" .root "component" .component "spread" $values.topologySpread "labelKey" "controller-revision-hash") | nindent 6 }}
      {{- end }}
      {{- include "tsujiban.migration" (merge (dict "image" $image) .) | nindent 6 }}
      containers:
      - name: {{ .component }}
        image: {{ include "tsujiban.image" (dict "root" .root "image" $image) }}
        imagePullPolicy: {{ $image.pullPolicy }}
        args:
        - serve
        - --environment={{ .root.Values.environment }}
        - --system-namespace={{ .root.Release.Namespace }}
        {{- include "tsujiban.s3Arguments" . | nindent 8 }}
        {{- with include "tsujiban.databaseArguments" . }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $values.scrub }}
        - --scrub-days={{ .days }}
        {{- end }}
        {{- if has "arguments" .row.own }}
        {{- include (printf "tsujiban.%s.arguments" .component) . | nindent 8 }}
        {{- end }}
        {{- range $called }}
        - --{{ . }}-endpoint=https://tsujiban-{{ . }}.{{ $.root.Release.Namespace }}.svc:8443
        - --{{ . }}-ca-file=/etc/tsujiban/tls/ca.crt
        - --{{ . }}-token-file=/var/run/secrets/tsujiban.dev/{{ . }}/token
        {{- end }}
        {{- if and .row.spool (has "audit" $called) }}
        - --spool-dir=/var/lib/tsujiban/spool
        - --spool-bytes={{ include "tsujiban.mebibytes" $values.spool.size | int64 | mul 1048576 }}
        {{- end }}
        - --log-level={{ .root.Values.logLevel }}
        {{- with .root.Values.otlpEndpoint }}
        - --otlp-endpoint={{ . }}
        {{- end }}
        env:
        {{- include "tsujiban.temporaryEnvironment" . | nindent 8 }}
        ports:
        - {name: grpc, containerPort: 8443}
        - {name: health, containerPort: 8081}
        - {name: metrics, containerPort: 9090}
        # the empty service is alive as long as the process is; `readiness` can take calls
        # longer than the two minutes for which it waits for a storage that does not answer yet
        startupProbe:
          grpc: {port: 8081}
          periodSeconds: 1
          failureThreshold: 180
        livenessProbe:
          grpc: {port: 8081}
          periodSeconds: 10
          failureThreshold: 6
        readinessProbe:
          grpc: {port: 8081, service: readiness}
          periodSeconds: 5
        resources: {{- toYaml $values.resources | nindent 10 }}
        securityContext: {{- include "tsujiban.containerSecurity" . | nindent 10 }}
        volumeMounts:
        - {name: data, mountPath: /var/lib/tsujiban}
        {{- include "tsujiban.temporaryMount" . | nindent 8 }}
        - {name: tls, mountPath: /etc/tsujiban/tls, readOnly: true}
        - {name: master-key, mountPath: /etc/tsujiban/master-key, readOnly: true}
        - {name: epoch-keys, mountPath: /etc/tsujiban/epoch-keys, readOnly: true}
        {{- include "tsujiban.storeMounts" . | nindent 8 }}
        {{- range $called }}
        {{- include "tsujiban.tokenMount" . | nindent 8 }}
        {{- end }}
      volumes:
      # The operator makes these three; the pod waits for them.
      - name: tls
        secret: {secretName: tsujiban-{{ .component }}-tls, defaultMode: 0440}
      - name: master-key
        secret: {secretName: tsujiban-master-key, defaultMode: 0440}
      - name: epoch-keys
        secret: {secretName: tsujiban-epoch-keys, defaultMode: 0440}
      {{- include "tsujiban.temporaryVolume" . | nindent 6 }}
      {{- include "tsujiban.storeVolumes" . | nindent 6 }}
      {{- range $called }}
      {{- include "tsujiban.tokenVolume" . | nindent 6 }}
      {{- end }}
  volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata:
      name: data
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $values.persistence.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ $values.persistence.size }}
{{- end }}

{{- define "tsujiban.service.networkPolicy" -}}
{{- $here := append (include "tsujiban.serviceNames" .root | fromJsonArray) "operator" }}
{{- $routed := list }}
{{- if .root.Values.edge.enabled }}{{ range .root.Values.edge.routes }}{{ $routed = append $routed .service }}{{ end }}{{ end -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: tsujiban-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "tsujiban.labels" (dict "root" .root "component" "network") | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "tsujiban.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    {{- range .row.callers }}
    {{- if has . $here }}
    {{- include "tsujiban.componentPeer" (dict "root" $.root "component" .) | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- include "tsujiban.componentPeer" (dict "root" .root "component" "test") | nindent 4 }}
    {{- if has "collector" .row.callers }}
    # the collectors of groups: only the operator labels a namespace so
    - namespaceSelector:
        matchExpressions: [{key: tsujiban.dev/tenant, operator: Exists}]
      podSelector:
        matchLabels: {app.kubernetes.io/component: collector}
    {{- end }}
    {{- if has .component $routed }}
    # the platform's gateway
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .root.Values.edge.from.namespace }}}}
      {{- with .root.Values.edge.from.podLabels }}
      podSelector:
        matchLabels: {{- toYaml . | nindent 10 }}
      {{- end }}
    {{- end }}
    ports: [{protocol: TCP, port: 8443}]
  {{- with .root.Values.metrics.namespace }}
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
    ports: [{protocol: TCP, port: 9090}]
  {{- end }}
  egress:
  {{- include "tsujiban.toApiserver" .root | nindent 2 }}
  {{- include "tsujiban.toS3" .root | nindent 2 }}
  {{- if .database.url }}
  {{- include "tsujiban.toDatabase" .root | nindent 2 }}
  {{- end }}
  {{- include "tsujiban.toServices" (dict "root" .root "services" (include "tsujiban.calledBy" (dict "root" .root "caller" .component) | fromJsonArray)) | nindent 2 }}
  {{- include "tsujiban.toOtlp" .root | nindent 2 }}
{{- end }}
