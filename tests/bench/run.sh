#!/bin/bash
# Installs what is measured beside AccreteFS, builds, and measures: bench.py, the options of which it
# takes. As root, so that caches can be dropped; else the cold rows are left out.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools/install-packages.sh python3-h5py python3-zarr
cmake --preset release >/dev/null
cmake --build --preset release --parallel "$(nproc)"
exec tests/bench/bench.py "$@"
