#!/usr/bin/env bash
# Make a bundle for a GPU machine that reaches no network: packages for its Python and a model, in parts small enough to
# send one by one. Run where there is a network; `run.sh` is the other half.
#
#   tools/gpu/prepare.sh FOLDER MODEL [PYTHON_VERSION]
#   WITH="ray pytest pluggy iniconfig" tools/gpu/prepare.sh FOLDER MODEL
#
# MODEL is a GGUF file (the embedded model's or any that bystander reads) or the folder of an ordinary checkpoint.
# WITH names packages beside those in wheels.txt (WHEELS: another list in its place); each comes in the version that is
# installed here. FOLDER gets part-00, part-01, ... of at most PART_MB (default 55) megabytes.
set -euo pipefail
die() { echo "prepare.sh: $*" >&2; exit 2; }
[ $# -ge 2 ] || die "give the folder for the parts and a model: tools/gpu/prepare.sh FOLDER MODEL [PYTHON_VERSION]"
folder=$1 model=$2 version=${3:-3.12}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
wheels=${WHEELS:-$here/wheels.txt}
if [ -d "$model" ]; then
    [ -f "$model/config.json" ] || die "$model holds no config.json: give a checkpoint's folder or a GGUF"
else
    [ -f "$model" ] || die "$model: there is no such file or folder"
    [ "$(head -c 4 "$model")" = GGUF ] || die "$model is no GGUF, and no checkpoint's folder"
fi
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${tag}_x86_64")
done
read -r -a more <<< "${WITH:-}"
mapfile -t names < <(grep -v -e '^#' -e '^[[:space:]]*$' "$wheels")
wanted=()
for name in "${names[@]}" ${more[@]+"${more[@]}"}; do
    found=$("$python" -c "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))" "$name" 2>/dev/null) ||
        die "$name is not installed here, so that its version is not known: install it, or leave it out of WITH"
    wanted+=("$name==$found")
done
"$python" -m pip install --quiet --no-deps --no-compile --only-binary=:all: --implementation cp \
    --python-version "$version" "${platforms[@]}" --target "$work/site" "${wanted[@]}"

# The package itself runs from src/; this is for its version.
release=$("$python" -c "import importlib.metadata as m; print(m.version('bystander'))")
info="$work/site/bystander-$release.dist-info"
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: bystander\nVersion: %s\n' "$release" > "$info/METADATA"
tar -C "$work/site" -c . | xz -6 -T2 > "$work/site.tar.xz"
rm -rf "$work/site"
mkdir "$work/model"
cp -rL "$model" "$work/model/"
rm -f "$folder"/part-*
tar -C "$work" -c site.tar.xz model | split --bytes="${PART_MB:-55}M" --numeric-suffixes - "$folder/part-"
ls -la "$folder"
