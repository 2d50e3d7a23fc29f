#!/bin/sh
# Ask PyPI's advisories about every package of an environment: audit.sh [PYTHON]
# 0 none is known, 1 some are, or a package could not be asked about: a registry without advisories must not look clean.
set -eu

PYTHON=${1:-python3}
auditor=$(mktemp -d)
trap 'rm -rf "$auditor"' EXIT

"$PYTHON" -m venv "$auditor"
"$auditor/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check pip-audit==2.10.1
# reelscribe itself is on no registry.
"$PYTHON" -m pip freeze --disable-pip-version-check --exclude reelscribe --exclude-editable >"$auditor/installed.txt"
"$auditor/bin/pip-audit" --strict --no-deps --disable-pip --progress-spinner off -r "$auditor/installed.txt"
