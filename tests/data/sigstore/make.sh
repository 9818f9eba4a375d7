#!/bin/sh
# Makes the files beside this one: for each kind of key, KIND.pub and KIND.signature-1, a stored
# signature of manifest.json as signed.example/birds/bluebird:build1, in the form and with the
# payload that containers/image writes. Keys and signatures are by openssl (made with 3.0.19),
# because Debian's skopeo is built without sigstore signing ("Debian-local change: sigstore
# disabled"). The private keys are thrown away.
set -eu
cd "$(dirname "$0")"
top=$(mktemp -d)
trap 'rm -r "$top"' EXIT

printf '%s' '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}' > manifest.json
digest=$(sha256sum manifest.json | cut -d' ' -f1)
printf '%s' "{\"critical\":{\"identity\":{\"docker-reference\":\"signed.example/birds/bluebird:build1\"},\"image\":{\"docker-manifest-digest\":\"sha256:$digest\"},\"type\":\"cosign container image signature\"},\"optional\":{\"creator\":\"containers/image 5.36.0\",\"timestamp\":1767225600}}" > "$top/payload"

store() {
    openssl pkey -in "$top/key" -pubout -out "$1.pub"
    printf '\000sigstore-json\n{"mimeType":"application/vnd.dev.cosign.simplesigning.v1+json","payload":"%s","annotations":{"dev.cosignproject.cosign/signature":"%s"}}' \
        "$(base64 -w0 "$top/payload")" "$(base64 -w0 "$top/signature")" > "$1.signature-1"
}

for curve in P-256 P-384 P-521; do
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:$curve -out "$top/key"
    openssl dgst -sha256 -sign "$top/key" -out "$top/signature" "$top/payload"
    store "ecdsa-$(echo $curve | tr -d - | tr P p)"
done
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$top/key"
openssl dgst -sha256 -sign "$top/key" -out "$top/signature" "$top/payload"
store rsa-2048
# The same key in PKCS #1 form.
openssl rsa -in "$top/key" -RSAPublicKey_out -out rsa-2048.pkcs1.pub 2> "$top/noise"
# A signature by the same key that no client accepts: PSS padding.
openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sign "$top/key" -out "$top/signature" "$top/payload"
store rsa-2048-pss
openssl genpkey -algorithm ED25519 -out "$top/key"
openssl pkeyutl -sign -rawin -inkey "$top/key" -in "$top/payload" -out "$top/signature"
store ed25519

# Keys that cannot be trusted here.
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out "$top/key"
openssl pkey -in "$top/key" -pubout -out rsa-1024.pub
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp224r1 -out "$top/key"
openssl pkey -in "$top/key" -pubout -out ecdsa-p224.pub
openssl genpkey -algorithm X25519 -out "$top/key"
openssl pkey -in "$top/key" -pubout -out x25519.pub
