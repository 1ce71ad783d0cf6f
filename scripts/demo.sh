#!/usr/bin/env bash
# The whole pipeline, small, with trained weights, on a synthetic recording: installs once, then runs `mfl demo`.
# Arguments go to it, such as --open to see the report in a browser.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up ""
exec "$venv/bin/mfl" demo "$@"
