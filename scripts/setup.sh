# Sourced by demo.sh and test.sh: makes the virtual environment and installs the package, once.
#
#   set_up EXTRAS    EXTRAS is empty or, for instance, "[test]"
#
# MFL_VENV: where the environment lies (default: .venv in the repository). PYTHON: which interpreter makes it.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${MFL_VENV:-$root/.venv}"

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11 or newer found (looked for ${PYTHON:-python3, python3.11 to 3.13}). Set PYTHON." >&2
    return 2
}

set_up() {
    local extras="$1" stamp wanted python
    stamp="$venv/.mouse-facelift$extras"
    wanted="$(cat "$root/pyproject.toml" "$root/scripts/constraints.txt" | cksum)"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    if [ ! -x "$venv/bin/python" ]; then
        python="$(find_python)" || return 2
        echo "Making $venv with $("$python" --version)"
        "$python" -m venv "$venv"
    fi
    echo "Installing mouse-facelift$extras into $venv (PyTorch is large: this takes minutes)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$root/scripts/constraints.txt" --editable "$root$extras"
    echo "$wanted" >"$stamp"
}
