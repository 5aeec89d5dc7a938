# What the scripts in this folder share: a place to work, environments, builds. To be sourced.
python=${PYTHON:-python3}
work=$(mktemp -d)
declare -A builds
end() {
    for build in "${builds[@]}"; do kill -- "-$build" 2>/dev/null || true; done
    rm -rf "$work"
}
trap end EXIT
# Of what is installed little is imported, and compiled then.
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1

say() { printf '\n== %s %s\n' "$(date +%T)" "$*"; }
environment() { # environment NAME PACKAGE...: a virtual environment with these packages
    "$python" -m venv "$work/$1"
    "$work/$1/bin/pip" install --quiet "${@:2}"
}
copy() { # copy FOLDER: what the repository holds
    mkdir "$1"
    git ls-files -z | xargs -0 cp --parents -t "$1"
}
start() { # start NAME SOURCE DEFINITION...: a build of its own, beside all else and behind it
    definitions=("${@:3}")
    nice setsid "$work/build/bin/pip" install --quiet --no-deps --target "$work/builds/$1" "$2" \
        "${definitions[@]/#/--config-settings=cmake.define.}" >"$work/$1.log" 2>&1 &
    builds[$1]=$!
}
finish() { # finish NAME: waits for such a build; Python takes it from here on
    wait "${builds[$1]}" || { cat "$work/$1.log"; return 1; }
    unset "builds[$1]"
    export PYTHONPATH=$work/builds/$1
}
debian() { # debian PROGRAM PACKAGE: installs it where the program is missing
    command -v "$1" >/dev/null && return
    as_root=$([ "$(id -u)" -eq 0 ] || echo sudo)
    $as_root apt-get update -qq
    $as_root apt-get install -y -qq --no-install-recommends "$2"
}

# The highest instruction set that this processor surely has.
level=$(grep -qw avx2 /proc/cpuinfo && echo avx2 || echo baseline)

# The tests of what is handed over and comes back: arguments, structures, state, files.
interface=(tests/test_{structures,parameters,gradients,formats,sixteen_bits,float8,layouts,build}.py
    tests/test_{apply_gradients,step,groups,hyperparameters,learning_rates,averages,state}.py
    tests/test_{state_dict,copies,kernels}.py
    tests/test_{settings,all_or_nothing,any_order,array_rules,checkpoint,checkpoint_files}.py
    tests/test_{safetensors,rows,formulas}.py)
