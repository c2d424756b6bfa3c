#!/bin/bash
# Installs the packages, builds, and runs all tests: in a release build, but for those that measure
# under AddressSanitizer with UBSan, and those with many threads under ThreadSanitizer. The builds are kept in build-*.
#   tests/run.sh              all three
#   tests/run.sh PRESET...    some of them: release, asan, tsan
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install-packages.sh

[ $# -gt 0 ] || set -- release asan tsan
jobs=$(nproc)
for preset in "$@"; do
  echo "== $preset =="
  cmake --preset "$preset"
  cmake --build --preset "$preset" --parallel "$jobs"
  selection=()
  [ "$preset" != tsan ] || selection=(--label-regex '^threads$')
  ctest --preset "$preset" --parallel "$jobs" --no-tests=error "${selection[@]}"
done
