#!/bin/bash
# Installs the packages, builds, and does the main job before your eyes.
#   tools/demo.sh [DIR]    in DIR, which is kept, or in a temporary directory
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install-packages.sh
cmake -S . -B build -DCMAKE_BUILD_TYPE=Release
cmake --build build --parallel "$(nproc)" \
  --target accretefs accretefs-unpack accrete-simulate accrete-sigclip
export PATH=$PWD/build:/usr/bin:$PATH  # accretefs; and Debian's own python3, which has astropy

if [ $# -gt 0 ]; then
  mkdir -p "$1"
  cd "$1"
else
  temporary=$(mktemp -d)
  cd "$temporary"
fi

here=$PWD
finish() {
  while grep -q " $here/MNT " /proc/self/mountinfo; do fusermount3 -uz "$here/MNT"; done
  cd /
  if [ -n "${temporary:-}" ]; then rm -rf --one-file-system "$temporary"; fi
}
trap finish EXIT

# Prints a command as a user would type it, then runs it.
try() {
  printf '\n$ %s\n' "$1"
  eval "$1"
}

echo
echo "# A night's frames, simulated"
try 'accrete-simulate --frames 200 --truth hits.txt frames'
try 'ls frames | head -n 3; du -sh frames'

echo
echo "# Mount, make a cube, copy the frames in"
mkdir -p STORE MNT
try 'accretefs STORE MNT'
try 'mkdir MNT/m42'
try 'time cp frames/*.fits MNT/m42/append/'
try 'cat MNT/m42/meta/shape'
try 'ls MNT/m42 MNT/m42/slices'

echo
echo "# Planes, Z-columns and the whole cube are files"
try "python3 -c \"from astropy.io import fits; print(fits.getdata('MNT/m42/slices/xy/z000017.fits').mean())\""
try "python3 -c \"import numpy as np; a=np.load('MNT/m42/slices/zx/y000005.npy',mmap_mode='r'); print(a.shape)\""
try 'dd if=MNT/m42/slices/z/x000120/y000088.raw status=none | od -t f4 | head -n 4'
try 'cp MNT/m42/cube.fits m42.fits; fitsverify -q m42.fits'

echo
echo "# The planted cosmic rays stand out along z"
cat >find_hits.py <<'PYTHON'
import numpy as np
truth = {tuple(map(int, line.split()[:3])) for line in open("hits.txt")}
found = set()
for y in range(512):
    row = np.load(f"MNT/m42/slices/zx/y{y:06}.npy", mmap_mode="r")  # Z-columns, each contiguous
    middle = np.median(row, axis=1, keepdims=True)
    spread = 1.4826 * np.median(abs(row - middle), axis=1, keepdims=True)
    found |= {(z, x, y) for x, z in zip(*np.nonzero(row > middle + 20 * spread + 500))}
print(f"{len(truth)} pixels were hit, {len(truth & found)} of them found, "
      f"{len(found - truth)} others")
PYTHON
try 'cat find_hits.py; python3 find_hits.py'

echo
echo "# Frames come in at any side, and in any order; rm takes them out, mv brings them back"
try 'accrete-simulate --frames 6 --seed 7 late'
try 'cp late/frame-000000.fits MNT/m42/prepend/first.fits; cp late/frame-000001.fits MNT/m42/insert/z/100/middle.fits'
try 'cat MNT/m42/meta/shape; head -n 2 MNT/m42/meta/frames'
try 'rm MNT/m42/frames/first.fits MNT/m42/append/frame-000042.fits; cat MNT/m42/meta/shape; ls MNT/m42/removed'
try 'mv MNT/m42/removed/frame-000042.fits MNT/m42/append/; rm MNT/m42/removed/first.fits MNT/m42/frames/middle.fits'
try 'cmp MNT/m42/cube.fits m42.fits && echo "as it was"'
try 'mkdir MNT/sorted; echo DATE-OBS >MNT/sorted/meta/order; ls frames/*.fits | shuf -n 50 | xargs -P4 -I{} cp {} MNT/sorted/append/'
try 'cut -f 1,3,8 MNT/sorted/meta/frames | head -n 4'

echo
echo "# Real frames, of those that come with astropy: the Parkes telescope's, Hubble's"
try 'real=/usr/lib/python3/dist-packages/astropy'
try 'mkdir MNT/parkes MNT/stis'
try 'cp $real/modeling/tests/data/1904-66_AZP.fits MNT/parkes/append/'
try 'cat MNT/parkes/meta/shape MNT/parkes/meta/dtype'
try 'cmp $real/modeling/tests/data/1904-66_AZP.fits MNT/parkes/frames/1904-66_AZP.fits && echo same'
try 'cp $real/io/fits/tests/data/o4sp040b0_raw.fits MNT/stis/append/'
try 'cat MNT/stis/meta/shape MNT/stis/meta/dtype'
try 'cmp $real/io/fits/tests/data/o4sp040b0_raw.fits MNT/stis/frames/o4sp040b0_raw.fits && echo same'
try "python3 -c \"from astropy.io import fits; h=fits.getheader('MNT/parkes/slices/yx/z0.fits'); print(h['CTYPE1'], h['CTYPE2'])\"  # transposed"
try 'gzip -c frames/frame-000007.fits >seven.fits.gz; cp seven.fits.gz MNT/m42/append/; cmp seven.fits.gz MNT/m42/frames/seven.fits.gz && echo same'
try 'cmp MNT/m42/slices/xy/z7.npy MNT/m42/slices/xy/z200.npy && echo "the same plane"; rm MNT/m42/frames/seven.fits.gz'
try 'cp $real/io/fits/tests/data/table.fits MNT/stis/append/ || cat MNT/stis/last-error'

echo
echo "# Poke the median in for each outlier: every view shows it at once, no frame is copied again"
try "accrete-sigclip MNT/m42 >changes.txt; sed -n '1,3p;\$p' changes.txt"
try 'for i in 1 2; do cmp -s frames/frame-00000$i.fits MNT/m42/frames/frame-00000$i.fits || echo "frame $i is repaired"; done'
try "python3 -c \"import numpy as np; row=np.load('MNT/m42/slices/zx/y000005.npy',mmap_mode='r+'); row[100:110,17]=0\""
try "python3 -c \"from astropy.io import fits; print(fits.getdata('MNT/m42/slices/xy/z000017.fits')[5,98:104])\""
try 'cp frames/frame-000017.fits MNT/m42/slices/xy/z000017.fits; cmp frames/frame-000017.fits MNT/m42/frames/frame-000017.fits && echo "as it came"'
try "python3 -c \"from astropy.io import fits; fits.setval('MNT/m42/slices/xy/z000017.fits','OBSERVER',value='Bee'); print(fits.getval('MNT/m42/frames/frame-000017.fits','OBSERVER'))\""
try 'cp MNT/m42/cube.fits m42.fits'

echo
echo "# Unmount, mount again: all still there"
try 'fusermount3 -u MNT; accretefs STORE MNT'
try 'cat MNT/m42/meta/shape MNT/parkes/meta/shape MNT/stis/meta/shape'
try 'cmp MNT/m42/cube.fits m42.fits && echo same'
try 'fusermount3 -u MNT'
echo
echo "The demo is done."
