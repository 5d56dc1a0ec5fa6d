#!/bin/sh
# Make or renew .venv from the lock: sh envs/install.sh [PYTHON]. Run in the project's folder; `make` does.
set -eu

suits() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

python=${1:-}
if [ -z "$python" ]; then
  for candidate in python3.11 python3.12 python3.13 python3 python; do
    if suits "$candidate"; then python=$candidate && break; fi
  done
fi
if [ -z "$python" ] || ! suits "$python"; then
  found=$("${python:-python3}" -V 2>/dev/null || true)
  echo "mirrorsym: Python 3.11, 3.12 or 3.13 is needed, and ${python:-python3} is ${found:-not there};" \
    "install one, or name it: make PYTHON=/path/to/python3.12" >&2
  exit 1
fi

# What an install that broke off left goes on; what another Python left, or one without pip, is made anew.
if ! { suits .venv/bin/python && .venv/bin/python -c 'import pip' 2>/dev/null; }; then
  rm -rf .venv
  "$python" -m venv .venv || { rm -rf .venv; echo "mirrorsym: $python cannot make .venv; see above" >&2; exit 1; }
fi
echo "installing into .venv with $python: 3.1 GB to download, 5.3 GB on the disk, most of it PyTorch and its GPU" \
  "libraries; two to five minutes beside the download"
# The lock is complete and leaves out what torch asks for and nothing here uses (envs/README.md): no dependencies.
if command -v uv >/dev/null; then
  uv pip install --python .venv/bin/python --no-deps --require-hashes -r envs/requirements.lock
else
  .venv/bin/python -m pip install --disable-pip-version-check --no-compile --no-deps --require-hashes \
    -r envs/requirements.lock
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
