#!/bin/sh
# Install reelscribe with its extras, pinned, and write down what that brought: install.sh WHEEL_OR_SDIST EXTRAS CONSTRAINTS
# Both images run it, and so does tests/test_launcher_install.py. PYTHON names the interpreter (python3), SBOM the file of
# the bill of materials (none by default).
set -eu

PYTHON=${PYTHON:-python3}
# Of no image's environment: the bill's maker lives in one of its own for as long as it takes.
CYCLONEDX=cyclonedx-bom==7.5.0

if [ "$#" -ne 3 ]; then
    echo "usage: install.sh WHEEL_OR_SDIST EXTRAS CONSTRAINTS" >&2
    exit 2
fi

"$PYTHON" -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -c "$3" "$1[$2]"
"$PYTHON" -m pip check --disable-pip-version-check

if [ -n "${SBOM:-}" ]; then
    maker=$(mktemp -d)
    "$PYTHON" -m venv "$maker"
    "$maker/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check "$CYCLONEDX"
    mkdir -p "$(dirname "$SBOM")"
    "$maker/bin/cyclonedx-py" environment --of JSON --output-reproducible -o "$SBOM" \
        "$("$PYTHON" -c 'import sys; print(sys.executable)')"
    rm -rf "$maker"
fi
