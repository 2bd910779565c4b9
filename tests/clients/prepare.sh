# Sourced by `run` and `engine`: builds the binaries and fills a Python environment below .cache.

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/debian.sh
target=${CARGO_TARGET_DIR:-target}
[[ $target = /* ]] || target=$PWD/$target
export BIN_DIR=$target/debug

build_binaries() {
    echo "Building the binaries"
    cargo build --quiet --workspace --bins
}

# python_environment NAME REQUIREMENTS...: makes .cache/NAME unless it already has just these.
python_environment() {
    local dir=.cache/$1 wanted
    shift
    wanted=$(cat "$@")
    [[ -f $dir/installed && $(<"$dir/installed") == "$wanted" ]] && return
    echo "Installing Python packages into $dir"
    rm -rf "$dir"
    mkdir -p .cache
    # Debian keeps what fills a new environment in a package of its own.
    python3 -c 'import ensurepip' 2>/dev/null ||
        debian_package python3-venv "clients of the tests"
    python3 -m venv "$dir"
    "$dir/bin/pip" install --quiet --disable-pip-version-check \
        $(printf -- '--requirement %s ' "$@")
    printf '%s\n' "$wanted" >"$dir/installed"
}
