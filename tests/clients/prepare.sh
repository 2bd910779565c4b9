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
    # The lists are complete: nothing has to be looked for.
    "$dir/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile \
        $(printf -- '--requirement %s ' "$@")
    printf '%s\n' "$wanted" >"$dir/installed"
}

# javascript_environment: brings the JavaScript checks and their packages together in
# .cache/javascript, unless node is missing: then the checks say so.
javascript_environment() {
    local dir=.cache/javascript lock=tests/clients/package-lock.json
    command -v npm >/dev/null || return 0
    if ! cmp --silent "$lock" "$dir/installed"; then
        echo "Installing JavaScript packages into $dir"
        rm -rf "$dir"
        mkdir -p "$dir"
        cp tests/clients/package.json "$lock" "$dir"
        npm ci --ignore-scripts --no-audit --no-fund --silent --prefix "$dir"
        cp "$lock" "$dir/installed"
    fi
    # They find their packages beside themselves.
    cp tests/clients/*.mjs "$dir"
}
