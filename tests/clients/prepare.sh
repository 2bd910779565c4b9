# Sourced by `run` and `engine`: builds the binaries and fills a Python environment below .cache.

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${CARGO_TARGET_DIR:-target}
[[ $target = /* ]] || target=$PWD/$target
export BIN_DIR=$target/debug

build_binaries() {
    echo "Building the binaries"
    cargo build --quiet --package ollama-coordinator --package ollama-agent \
        --package ollama-simulator --bins
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
    if ! python3 -m venv "$dir" >"$dir.log" 2>&1; then
        echo "python3 -m venv failed ($dir.log); on Debian it needs: apt-get install python3-venv" >&2
        return 1
    fi
    "$dir/bin/pip" install --quiet --disable-pip-version-check \
        $(printf -- '--requirement %s ' "$@")
    printf '%s\n' "$wanted" >"$dir/installed"
}
