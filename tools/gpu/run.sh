#!/usr/bin/env bash
# On a GPU machine without a network: take the bundle of `prepare.sh` into use, then run a command with bystander.
#
#   tools/gpu/run.sh FOLDER keep                     keep this part of the bundle; the next one comes with the next call
#   tools/gpu/run.sh FOLDER bystander run quickstart
#   MODEL=/tmp/bystander-gpu/model/my.gguf; tools/gpu/run.sh FOLDER bystander run study.yaml --set model.name=$MODEL
#   tools/gpu/run.sh FOLDER python3 -m pytest -m gpu
#
# FOLDER holds one or more parts. They are collected in STORE (default /tmp/bystander-gpu) and unpacked once complete;
# another bundle takes another STORE. BYSTANDER_GPU_MODEL is then the bundle's model, and, where that is the embedded
# model's GGUF, `smollm2-135m` is made of it.
set -euo pipefail
die() { echo "run.sh: $*" >&2; exit 2; }
[ $# -ge 2 ] || die "give the folder of the parts and a command: tools/gpu/run.sh FOLDER COMMAND ..."
folder=$1
shift
store=${STORE:-/tmp/bystander-gpu}
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$store"
for part in "$folder"/part-*; do
    if [ -f "$part" ] && [ ! -f "$store/ready" ]; then cp "$part" "$store/"; fi
done
[ "$1" = keep ] && { ls -la "$store"; exit 0; }

if [ ! -f "$store/ready" ]; then
    compgen -G "$store/part-*" > /dev/null || die "there is no part of a bundle in $folder or $store"
    cat "$store"/part-* | tar -C "$store" -x || die "the bundle is not whole: is a part of it missing in $store?"
    mkdir -p "$store/site"
    tar -C "$store/site" -xJf "$store/site.tar.xz"
    rm "$store"/part-* "$store/site.tar.xz"
    touch "$store/ready"
fi
model=$(find "$store/model" -mindepth 1 -maxdepth 1)
export PYTHONPATH="$root/src:$store/site" BYSTANDER_GPU_MODEL="$model" BYSTANDER_CACHE="$store/cache"
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
if [ -f "$model" ]; then
    embedded=$(sed -n 's/^GGUF_SHA256 = "\(.*\)"/\1/p' "$root/src/bystander/lm/embedded.py")
    if [ "$(sha256sum "$model" | cut -d' ' -f1)" = "$embedded" ]; then export BYSTANDER_GGUF="$model"; fi
fi
if [ "$1" = bystander ]; then
    shift
    entry=$(sed -n 's/^bystander = "\(.*\):\(.*\)"/from \1 import \2; \2()/p' "$root/pyproject.toml")
    exec python3 -c "$entry" "$@"
fi
exec "$@"
