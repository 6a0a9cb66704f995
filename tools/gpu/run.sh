#!/usr/bin/env bash
# On a GPU machine without a network: take the bundle of `prepare.sh` into use, then run a command with bystander.
#
#   tools/gpu/run.sh FOLDER keep                     keep this part of the bundle; the next one comes with the next call
#   tools/gpu/run.sh FOLDER bystander run quickstart
#   tools/gpu/run.sh FOLDER python3 some_script.py
#
# FOLDER holds one or more parts. They are collected in STORE (default /tmp/bystander-gpu) and unpacked once complete.
set -euo pipefail
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
    cat "$store"/part-* | tar -C "$store" -x
    mkdir -p "$store/site"
    tar -C "$store/site" -xJf "$store/site.tar.xz"
    rm "$store"/part-* "$store/site.tar.xz"
    touch "$store/ready"
fi
export PYTHONPATH="$root/src:$store/site" BYSTANDER_GGUF="$store/model.gguf" BYSTANDER_CACHE="$store/cache"
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
if [ "$1" = bystander ]; then
    shift
    exec python3 -c 'from bystander.cli.main import main; main()' "$@"
fi
exec "$@"
