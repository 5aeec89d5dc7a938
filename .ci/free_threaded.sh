#!/usr/bin/env bash
# Builds CPython without its global lock into DIRECTORY, and runs the tests of threads and processes
# on it: free_threaded.sh DIRECTORY. Neither Debian nor PyPI has one ready to use; the source is that
# of Debian 13, from where apt has this Debian's packages, in lists of its own. Needs Debian, gcc and
# make; as root it installs the headers that pip and NumPy's wheels depend on. It takes longer than
# .ci/run may.
set -euo pipefail
target=$(realpath -m "$1")
project=$(realpath "$(dirname "$0")/..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

apt-get update -qq
for header in openssl/ssl.h zlib.h ffi.h; do
    if ! echo "#include <$header>" | gcc -E - >/dev/null 2>&1; then
        apt-get install -qq -y --no-install-recommends libssl-dev zlib1g-dev libffi-dev
        break
    fi
done

keys=/usr/share/keyrings/debian-archive-keyring.gpg
apt-get indextargets --format "deb-src [signed-by=$keys] \$(REPO_URI) trixie main" \
    "Label: Debian" "Component: main" "Created-By: Packages" | sort -u >"$work/sources.list"
mkdir -p "$work/lists/partial" "$work/source"
other=(-o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o APT::Sandbox::User=root)
apt-get "${other[@]}" update -qq
cd "$work/source"
apt-get "${other[@]}" source -qq --download-only --tar-only python3.13
tar --extract --file python3.13_*.orig.tar.xz --strip-components 1

# Little optimisation: the build takes longer than everything that runs on it.
./configure --quiet --prefix="$target" --disable-gil --disable-test-modules \
    --with-ensurepip=install --without-static-libpython OPT="-O1 -g0" >configure.out 2>&1 ||
    { tail -n 40 configure.out; exit 1; }
make --silent -j"$(nproc)" install >make.out 2>&1 || { tail -n 40 make.out; exit 1; }
"$target/bin/python3.13t" -c "import ctypes, ssl, sys, zlib; assert not sys._is_gil_enabled()"

cd "$project"
"$target/bin/python3.13t" -m venv "$work/venv"
# NumPy's and hypothesis's last wheels for it are not those of their last releases.
"$work/venv/bin/pip" install --quiet --only-binary :all: numpy pytest pytest-xdist hypothesis
"$work/venv/bin/pip" install --quiet --config-settings=cmake.define.INSTEP_LEVELS=baseline \
    --config-settings=build-dir="$work/build" .
PYTHON_GIL=0 "$work/venv/bin/python" -m pytest -q -n auto \
    tests/test_{forks,threads,misuse,settings,structures,build,apply_gradients,learning_rates}.py \
    tests/test_{hyperparameters,averages,state,state_dict,copies,kernels}.py
