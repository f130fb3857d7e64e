#!/bin/sh
# Joins the pieces of a gpu-kit that lie beside this script, installs what this machine lacks, and starts
# benchmarks/gpu.py, or SCRIPT of that folder; arguments are passed on (--out DIR). Nothing is fetched, and nothing
# changed but the folder JOINED.
#
# PYTHON is the interpreter that has torch and transformers. Packages that the machine has in a suitable version are
# left as they are, so pieces whose packages are all there need not be brought.
set -eu
kit=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=${PYTHON:-python3}
joined=${JOINED:-${TMPDIR:-/tmp}/smallwit-gpu-kit}
rm -rf "$joined"
mkdir -p "$joined/wheels"
for piece in "$kit"/kit-*.tar; do
    name=$(basename "$piece")
    (cd "$kit" && grep " $name\$" SHA256SUMS | sha256sum -c --quiet -) || {
        echo "gpu-kit: $name is damaged; copy it again" >&2
        exit 1
    }
    tar -xf "$piece" -C "$joined"
done
[ -d "$joined/source" ] || { echo "gpu-kit: kit-1.tar, which has the source, is not beside this script" >&2; exit 1; }
"$python" "$joined/source/benchmarks/gpu_lacking.py" "$joined/wheels" > "$joined/lacking.txt"
if grep -q . "$joined/lacking.txt"; then
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
        --target "$joined/site" -r "$joined/lacking.txt"
fi
# In front of the machine's packages, but of these only what it lacks.
export PYTHONPATH="$joined/source/src:$joined/site"
exec "$python" "$joined/source/benchmarks/${SCRIPT:-gpu.py}" "$@"
