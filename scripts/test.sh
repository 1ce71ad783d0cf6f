#!/usr/bin/env bash
# Lint, types and tests: installs once, then checks everything. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up "[test]"
cd "$root"
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
# One thread a worker: two workers with two threads each would only get in each other's way.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$venv/bin/python" -m pytest --numprocesses "${MFL_TEST_WORKERS:-2}" "$@"
