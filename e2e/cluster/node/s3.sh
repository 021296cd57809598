# versitygw: S3 over TLS with an authority of its own, and Object Lock that is enforced. Sourced by init.
# Two buckets: tsujiban, of the owner of all, and tsujiban-audit, in which a user of its own may put, list and read, and nothing else.
# shellcheck shell=bash

s3_start() {
  local s3=$state/s3 access secret
  access=$(openssl rand -hex 10) secret=$(openssl rand -hex 20)
  mkdir -p "$s3/objects" "$s3/versions"   # side by side: the one must not lie in the other
  install -m 644 "$state/pki/s3-ca.crt" "$s3/ca.crt"
  (umask 077; printf %s "$access" >"$s3/access-key"; printf %s "$secret" >"$s3/secret-key")
  printf %s "https://$node_ip:7070" >"$s3/endpoint"
  printf %s ap-northeast-1 >"$s3/region"
  audit_access=$(openssl rand -hex 10)
  mkdir -p "$s3/iam" "$s3/audit"
  (
    umask 077
    printf %s "$audit_access" >"$s3/audit/access-key"
    openssl rand -hex 20 | tr -d '\n' >"$s3/audit/secret-key"
    printf '{"accessAccounts":{"%s":{"access":"%s","secret":"%s","role":"user","userID":0,"groupID":0,"projectID":0}}}' \
      "$audit_access" "$audit_access" "$(cat "$s3/audit/secret-key")" >"$s3/iam/users.json"
  )
  component_start s3 env ROOT_ACCESS_KEY_ID="$access" ROOT_SECRET_ACCESS_KEY="$secret" \
    versitygw --port "$node_ip:7070" --iam-dir "$s3/iam" --region ap-northeast-1 --cert "$state/pki/s3.crt" --key "$state/pki/s3.key" \
    posix --versioning-dir "$s3/versions" "$s3/objects"
}

no_body=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855   # SHA-256 of nothing; this curl does not say it by itself

# s3_request METHOD PATH [CURL-ARGUMENT...]: signed; the keys go by a file, so that no process list shows them. A body comes in $body.
s3_request() {
  local method=$1 path=$2 digest=$no_body
  shift 2
  if [ -n "${body:-}" ]; then
    digest=$(printf %s "$body" | sha256sum | cut -d ' ' -f 1)
    set -- "$@" --data-binary "$body"
  fi
  curl -fsS --cacert "$state/s3/ca.crt" --aws-sigv4 aws:amz:ap-northeast-1:s3 -X "$method" -H "x-amz-content-sha256: $digest" "$@" \
    --config <(printf 'user = "%s:%s"\n' "$(cat "$state/s3/access-key")" "$(cat "$state/s3/secret-key")") "https://$node_ip:7070$path"
}

s3_bucket() {
  component_await s3 30 "answering" s3_request GET /
  local bucket
  for bucket in tsujiban tsujiban-audit; do
    s3_request PUT "/$bucket" -H "x-amz-bucket-object-lock-enabled: true" >>"$state/log/s3.log" 2>&1 || fail s3 "making the bucket $bucket failed"
    s3_request GET "/$bucket?object-lock=" 2>>"$state/log/s3.log" | grep -q '<ObjectLockEnabled>Enabled<' || fail s3 "the bucket $bucket has no Object Lock"
  done
  body=$(s3_audit_policy) s3_request PUT '/tsujiban-audit?policy=' >>"$state/log/s3.log" 2>&1 || fail s3 "the policy of the bucket tsujiban-audit was refused"
}

# No right to delete. Who puts an object with a lock needs PutObjectRetention, with which a lock in compliance mode can be lengthened only.
s3_audit_policy() {
  local principal resource=arn:aws:s3:::tsujiban-audit
  principal="{\"AWS\":[\"$(cat "$state/s3/audit/access-key")\"]}"
  cat <<P
{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Principal": $principal, "Resource": ["$resource"],
   "Action": ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketObjectLockConfiguration"]},
  {"Effect": "Allow", "Principal": $principal, "Resource": ["$resource/*"],
   "Action": ["s3:PutObject", "s3:PutObjectRetention", "s3:GetObject", "s3:GetObjectVersion"]}]}
P
}
