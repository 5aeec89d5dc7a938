#!/usr/bin/env bash
# Builds for AArch64, and runs the tests of committed hashes under QEMU: the same bits as there.
# Needs Debian 12 on another processor, as root. It takes longer than .ci/run may.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root site=$work/site

dpkg --add-architecture arm64
apt-get update -qq
apt-get install -qq -y --no-install-recommends g++-aarch64-linux-gnu qemu-user cmake make
packages=(libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libexpat1 python3.11-minimal
    libpython3.11-minimal libpython3.11-stdlib libpython3.11-dev)
mkdir "$work/packages"
(cd "$work/packages" && apt-get download -qq "${packages[@]/%/:arm64}")
for package in "$work"/packages/*; do dpkg --extract "$package" "$root"; done
cat >"$work/python" <<END
#!/bin/sh
PYTHONPATH=$site exec qemu-aarch64 -L $root $root/usr/bin/python3.11 "\$@"
END
chmod +x "$work/python"

"$python" -m pip install --quiet --target "$site" --only-binary :all: --python-version 3.11 \
    --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    numpy pytest hypothesis pybind11 threadpoolctl
cmake -S . -B "$work/build" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_BUILD_TYPE=Release -DINSTEP_WERROR=ON \
    -DSKBUILD_PROJECT_VERSION=0.1.0 -DPython_EXECUTABLE="$work/python" \
    -DPython_INCLUDE_DIR="$root/usr/include/python3.11" \
    -DCMAKE_CXX_FLAGS="-isystem $root/usr/include" -Dpybind11_DIR="$site/pybind11/share/cmake/pybind11"
cmake --build "$work/build" --parallel "$(nproc)"
cp -r python/instep "$site"
cp "$work"/build/python/_core*.so "$site/instep"
"$work/python" -c "import platform, instep._core as core; print(platform.machine(), core.build_info())"
INSTEP_NUM_THREADS=2 "$work/python" -m pytest -q -p no:cacheprovider tests/test_hashes.py
