#!/usr/bin/env bash
# Faults planted one at a time; see tests/mutation.py. The lowest priority: it takes long.
set -euo pipefail
cd "$(dirname "$0")/.."
exec nice -n 19 python tests/mutation.py "$@"
