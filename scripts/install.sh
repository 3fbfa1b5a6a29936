#!/bin/sh
# Make the virtual environment: sh scripts/install.sh VENV STAMP   (called by the Makefile)
# Uses uv when it is on PATH, pip otherwise. PYTHON names the interpreter; without it the first that fits is taken.
set -eu
venv=$1
stamp=$2

die() { echo "install: $*" >&2; exit 1; }
free_mb() { df -Pk "$1" | awk 'NR==2 { print int($4 / 1024) }'; }
fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

cd "$(dirname "$0")/.."
uv=$(command -v uv || true)

python=${PYTHON:-}
if [ -n "$python" ]; then
    fits "$python" || die "PYTHON=$python is not Python 3.11 or newer"
else
    for candidate in python3.12 python3.11 python3 python3.13 python; do
        if fits "$candidate"; then python=$candidate; break; fi
    done
fi
if [ -z "$python" ]; then
    [ -n "$uv" ] || die "no Python 3.11 or newer found: install one, or name it with make PYTHON=..., or install uv"
    python=3.12 # uv brings it
fi
if [ -z "$uv" ]; then
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        die "$python cannot make virtual environments: install its venv package (Debian: apt install python3-venv)"
fi

# Tell the price before it is paid. GENERALIST_NEED_MB lowers the check where torch is a small CPU build.
if [ ! -x "$venv/bin/python" ] || ! ls "$venv"/.installed-* >/dev/null 2>&1; then
    need=${GENERALIST_NEED_MB:-7500}
    parent=$(dirname "$venv")
    mkdir -p "$parent" 2>/dev/null && [ -w "$parent" ] || die "cannot write to $parent: choose another place with make VENV=..."
    echo "Installing into $venv with ${uv:-pip}: about 7 GB of disk and 6 minutes, once (no GPU needed, one is used if there)."
    have=$(free_mb "$parent")
    [ "$have" -ge "$need" ] || die "$have MB free in $parent, about $need MB needed: free some space or choose another place with make VENV=..."
    temporary=${TMPDIR:-/tmp}
    if [ -z "$uv" ] && [ "$(free_mb "$temporary")" -lt $((need / 2)) ]; then
        die "$(free_mb "$temporary") MB free in $temporary, about $((need / 2)) MB needed while pip downloads: set TMPDIR to a larger place"
    fi
else
    echo "The dependencies changed: bringing $venv up to date."
fi

begin=$(date +%s)
rm -f "$venv"/.installed-*
if [ -n "$uv" ]; then
    [ -x "$venv/bin/python" ] || "$uv" venv --quiet --python "$python" "$venv"
    # uv does not compile by itself, and uncompiled torch and transformers start seconds slower each time.
    UV_COMPILE_BYTECODE=1 "$uv" pip install --python "$venv/bin/python" -c constraints.txt -e ".[all]"
else
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check \
        -c constraints.txt -e ".[all]" || die "pip failed: see above (no network? a proxy? a full disk?)"
fi
: > "$stamp"
size=$(du -sm "$venv" | cut -f1)
echo "Installed in $(($(date +%s) - begin)) s, $size MB."
