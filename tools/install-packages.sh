#!/bin/bash
# Installs what building, the demo and the tests need on Debian 12, and packages that are named beside;
# as root, or as a user with sudo. Does nothing, and needs no network, where all of it is there.
set -euo pipefail

packages=(
  # to build
  build-essential cmake ninja-build pkg-config libfuse3-dev libxxhash-dev libcfitsio-dev
  libseccomp-dev zlib1g-dev nlohmann-json3-dev libgtest-dev
  # to mount
  fuse3
  # programs that the demo and the tests use on views
  python3 python3-numpy python3-astropy libcfitsio-bin fitsverify attr rsync procps file man-db
  # filesystems that are full, or lose their power, in the tests
  e2fsprogs xfsprogs
  # frames of real telescopes for the tests, all small
  python3-fitsio python3-photutils python3-pyvo python3-reproject
)

missing=()
for package in "${packages[@]}" "$@"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "Installing ${missing[*]}"
if [ "$(id -u)" = 0 ]; then as_root=(env); else as_root=(sudo); fi
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null
