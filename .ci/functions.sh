# What the scripts in this folder share: a place to work, environments, copies. To be sourced.
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
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

# The tests of what is handed over and comes back: arguments, structures, state, files.
interface=(tests/test_{structures,parameters,gradients,formats,sixteen_bits,float8,layouts,build}.py
    tests/test_{apply_gradients,step,groups,hyperparameters,learning_rates,averages,state}.py
    tests/test_{state_dict,copies,kernels}.py
    tests/test_{settings,all_or_nothing,any_order,array_rules,checkpoint,checkpoint_files}.py
    tests/test_{safetensors,rows,formulas}.py)
