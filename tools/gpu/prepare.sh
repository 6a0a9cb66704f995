#!/usr/bin/env bash
# Make a bundle for a GPU machine that reaches no network: packages for its Python and the embedded model's GGUF, in
# parts small enough to send one by one. Run where there is a network; `run.sh` is the other half.
#
#   tools/gpu/prepare.sh FOLDER GGUF [PYTHON_VERSION]
#   WITH=ray tools/gpu/prepare.sh FOLDER GGUF        extras beside what wheels.txt names
#
# FOLDER gets part-00, part-01, ... of at most PART_MB (default 55) megabytes.
set -euo pipefail
folder=$1 gguf=$2 version=${3:-3.12}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${tag}_x86_64")
done
wanted=()
while read -r name; do
    wanted+=("$name==$("$python" -c "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))" "$name")")
done < <(grep -v '^#' "$here/wheels.txt"; printf '%s\n' ${WITH:-})
"$python" -m pip install --quiet --no-deps --no-compile --only-binary=:all: --implementation cp \
    --python-version "$version" "${platforms[@]}" --target "$work/site" "${wanted[@]}"

# The package itself runs from src/; this is for its version.
info="$work/site/bystander-$("$python" -c "import importlib.metadata as m; print(m.version('bystander'))").dist-info"
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: bystander\nVersion: %s\n' "$(basename "$info" .dist-info | cut -d- -f2)" > "$info/METADATA"
tar -C "$work/site" -c . | xz -6 -T2 > "$work/site.tar.xz"
cp "$gguf" "$work/model.gguf"
tar -C "$work" -c site.tar.xz model.gguf | split --bytes="${PART_MB:-55}M" --numeric-suffixes - "$folder/part-"
ls -la "$folder"
