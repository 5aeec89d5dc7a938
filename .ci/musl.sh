#!/usr/bin/env bash
# Builds CPython and instep for musl with Zig's compiler, and runs tests on it, those of committed
# hashes among them: the same bits as on glibc. Needs Debian on x86-64, as root, whose /lib gets
# musl's loader; the source of CPython and musl itself are those of Debian 13, from where apt has
# this Debian's packages. It takes longer than .ci/run may.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/functions.sh
root=$work/root site=$work/site

say "From Debian 13: the sources of CPython and zlib, musl"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$work/lists/partial" "$work/packages"
for kind in deb-src:Created-By deb:Created-By; do
    apt-get indextargets --format "${kind%:*} [signed-by=$keys] \$(REPO_URI) trixie main" \
        "Label: Debian" "Component: main" "${kind#*:}: Packages"
done | sort -u >"$work/sources.list"
other=(-o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o APT::Sandbox::User=root)
apt-get "${other[@]}" update -qq
sources() { # sources PACKAGE FOLDER
    mkdir -p "$2"
    (cd "$2" && apt-get "${other[@]}" source -qq --download-only --tar-only "$1" &&
        tar --extract --file "$1"_*.orig.tar.* --strip-components 1)
}
sources python3.13 "$work/cpython"
sources zlib "$work/zlib"
(cd "$work/packages" && apt-get "${other[@]}" download -qq musl &&
    dpkg --extract musl_*.deb "$work/musl")
cp "$(find "$work/musl" -name libc.so)" /lib/ld-musl-x86_64.so.1

say "Zig's compiler, for musl"
environment zig ziglang
tool() { # tool NAME ARGUMENT...: a compiler or its like, as configure and CMake call them
    { echo '#!/bin/sh' && echo "exec '$work/zig/bin/python' -m ziglang ${*:2} \"\$@\""; } >"$work/$1"
    chmod +x "$work/$1"
}
for_musl=(-target x86_64-linux-musl -fno-sanitize=undefined -Wno-date-time)
tool cc cc "${for_musl[@]}" -dynamic
tool ar ar
tool ranlib ranlib
# It spells instruction sets otherwise.
cat >"$work/c++" <<END
#!/usr/bin/env bash
given=("\${@/#-march=x86-64/-march=x86_64}")
exec "$work/zig/bin/python" -m ziglang c++ ${for_musl[*]} "\${given[@]/#-march=x86_64-v/-march=x86_64_v}"
END
chmod +x "$work/c++"

say "zlib and CPython"
# Of the host's libraries none is for musl.
export CC=$work/cc AR=$work/ar RANLIB=$work/ranlib PKG_CONFIG=false
quietly() { "$@" >"$work/log" 2>&1 || { tail -n 40 "$work/log"; return 1; }; }
(cd "$work/zlib" && CFLAGS="-O2 -fPIC" quietly ./configure --static --prefix="$root" &&
    quietly make install)
(cd "$work/cpython" && quietly env ZLIB_CFLAGS="-I$root/include" ZLIB_LIBS="-L$root/lib -lz" \
    ./configure --prefix="$root" --disable-test-modules --without-ensurepip \
    --without-static-libpython OPT="-O1 -g0" && quietly make -j"$(nproc)" install)

say "NumPy's wheel for musl, and instep"
"$python" -m pip install --quiet --target "$site" --only-binary :all: --python-version 3.13 \
    --platform musllinux_1_2_x86_64 numpy hypothesis pytest pytest-xdist pybind11 threadpoolctl
suffix=$("$root/bin/python3.13" -c "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))")
find "$site" -name "*-x86_64-linux-musl.so" | while read -r file; do
    mv "$file" "${file%.cpython-*}$suffix"
done
cmake -S . -B "$work/build" -DCMAKE_CXX_COMPILER="$work/c++" -DCMAKE_AR="$AR" \
    -DCMAKE_RANLIB="$RANLIB" -DCMAKE_BUILD_TYPE=Release -DINSTEP_OPENMP=OFF \
    -DSKBUILD_PROJECT_VERSION=0.1.0 -DPython_EXECUTABLE="$root/bin/python3.13" \
    -Dpybind11_DIR="$site/pybind11/share/cmake/pybind11" >"$work/cmake.out"
cmake --build "$work/build" --parallel "$(nproc)"
cp -r python/instep "$site"
rm -f "$site"/instep/_core*.so
cp "$work"/build/python/_core*.so "$site/instep"

say "Tests"
export PYTHONPATH=$site
"$root/bin/python3.13" -m instep
"$root/bin/python3.13" -m pytest -q -n auto -p no:cacheprovider \
    tests/test_{hashes,rules,structures,step,parameters,layouts,groups,state,kernels,averages,copies}.py
say "All passed"
