# versitygw: S3 over TLS with an authority of its own, and Object Lock that is enforced. Sourced by init.
# shellcheck shell=bash

s3_start() {
  local s3=$state/s3 access secret
  access=$(openssl rand -hex 10) secret=$(openssl rand -hex 20)
  mkdir -p "$s3/objects" "$s3/versions"   # side by side: the one must not lie in the other
  install -m 644 "$state/pki/s3-ca.crt" "$s3/ca.crt"
  (umask 077; printf %s "$access" >"$s3/access-key"; printf %s "$secret" >"$s3/secret-key")
  printf %s "https://$node_ip:7070" >"$s3/endpoint"
  printf %s ap-northeast-1 >"$s3/region"
  component_start s3 env ROOT_ACCESS_KEY_ID="$access" ROOT_SECRET_ACCESS_KEY="$secret" \
    versitygw --port "$node_ip:7070" --region ap-northeast-1 --cert "$state/pki/s3.crt" --key "$state/pki/s3.key" \
    posix --versioning-dir "$s3/versions" "$s3/objects"
}

no_body=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855   # SHA-256 of nothing; this curl does not say it by itself

# s3_request METHOD PATH [CURL-ARGUMENT...]: signed; the keys go by a file, so that no process list shows them
s3_request() {
  local method=$1 path=$2
  shift 2
  curl -fsS --cacert "$state/s3/ca.crt" --aws-sigv4 aws:amz:ap-northeast-1:s3 -X "$method" -H "x-amz-content-sha256: $no_body" "$@" \
    --config <(printf 'user = "%s:%s"\n' "$(cat "$state/s3/access-key")" "$(cat "$state/s3/secret-key")") "https://$node_ip:7070$path"
}

s3_bucket() {
  component_await s3 30 "answering" s3_request GET /
  s3_request PUT /tsujiban -H "x-amz-bucket-object-lock-enabled: true" >>"$state/log/s3.log" 2>&1 || fail s3 "making the bucket tsujiban failed"
  s3_request GET '/tsujiban?object-lock=' 2>>"$state/log/s3.log" | grep -q '<ObjectLockEnabled>Enabled<' || fail s3 "the bucket tsujiban has no Object Lock"
}
