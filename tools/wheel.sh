#!/usr/bin/env bash
# Builds the wheel, installs it into empty environments outside the checkout, and runs the README's commands there.
#   light   the package alone with what tables need: no torch, no judge, no Bandit
#   full    the package as `pip install bystander` gives it, at the versions of requirements.lock
# `tools/wheel.sh light` stops after the first, which takes half a minute.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-python3}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
quiet=(-q --disable-pip-version-check)
fresh=("${quiet[@]}" --no-compile --no-warn-conflicts) # bytecode of what is never imported takes half of the time
unset PYTHONPATH
# Nothing of the checkout but its source goes in: an old build folder would smuggle files into the wheel.
git -C "$root" ls-files -z --cached --others --exclude-standard -- src pyproject.toml README.md LICENSE |
  (cd "$root" && xargs -0 tar cf -) | (mkdir "$work/source" && tar xf - -C "$work/source")
"$python" -m pip wheel "${quiet[@]}" --no-deps -w "$work/dist" "$work/source"
wheel=("$work"/dist/bystander-*.whl)
mkdir "$work/elsewhere"
cd "$work/elsewhere"

"$python" -m venv "$work/light"
"$work/light/bin/python" -m pip install "${fresh[@]}" --no-deps "${wheel[0]}"
"$work/light/bin/python" - > "$work/light.txt" <<'END'
from importlib.metadata import requires
print("\n".join(line.partition(";")[0] for line in requires("bystander") if 'extra == "analysis"' in line))
END
grep -q polars "$work/light.txt"
"$work/light/bin/python" -m pip install "${fresh[@]}" -c "$root/requirements.lock" -r "$work/light.txt"
"$work/light/bin/python" - > table.csv <<'END'
print("source,persona,leakage,similarity")
for i in range(12):
    print(f"villain,p{i},{i * i % 7 / 7},{i / 12}")
END
"$work/light/bin/bystander" --version
"$work/light/bin/bystander" analyze table.csv > said
grep -q villain said
"$work/light/bin/bystander" new mine --yes > said
grep -q mine.yaml said
"$work/light/bin/bystander" studies > said
grep -q quickstart said
if "$work/light/bin/bystander" audit quickstart 2> refused; then exit 1; fi
grep -q "pip install bystander brings everything" refused
echo "light: $(du -sm "$work/light" | cut -f1) MB, tables without torch"
[ "${1:-}" = light ] && exit 0

"$python" -m venv "$work/full"
bin="$work/full/bin"
"$bin/python" -m pip install "${fresh[@]}" "${TORCH:-torch}" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
"$bin/python" -m pip install "${fresh[@]}" -c "$root/requirements.lock" "${wheel[0]}"
"$bin/bystander" studies > said
grep -q quickstart said
"$bin/bystander" personas > said
grep -q kindergarten_teacher said
"$bin/bystander" audit quickstart > said
tail -1 said
"$bin/bystander" plan quickstart > said
grep -q "plan" said
test -z "$("$bin/python" -c 'import bystander; print(bystander.__file__)' | grep "$root" || true)"
echo "full: $(du -sm "$work/full" | cut -f1) MB, the README's commands from another folder"
