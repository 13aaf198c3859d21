# shellcheck shell=bash
# Sourced by the scripts beside this file:
#
#     environment NAME "SOURCE ..." PIP-ARGUMENT...
#
# makes .venvs/NAME by `pip install PIP-ARGUMENT...` and reuses it until one of the sources (files or folders of this
# clone) changes. Messages go to stderr: what a script prints on stdout stays its own.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# The first Python that is new enough; the variable PYTHON names another one.
find_python() {
    local candidate
    for candidate in "${PYTHON:-python3.11}" python3.12 python3.13 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "found no Python 3.11 or newer; install one, or name it: PYTHON=/path/to/python3 $0"
}

# One line that changes when a source, or the place of this clone, changes.
stamp_of() {
    printf '%s ' "$root"
    (cd "$root" && find "$@" -name __pycache__ -prune -o -type f -exec cksum {} +) | LC_ALL=C sort | cksum
}

runs() { "$1" -c '' 2>/dev/null; }

environment() {
    local name=$1 folder=$root/.venvs/$1 sources=$2 stamp python
    shift 2
    # shellcheck disable=SC2086  # a list of names without spaces
    stamp=$(stamp_of $sources)
    if [ -f "$folder/stamp" ] && runs "$folder/bin/python"; then
        [ "$(cat "$folder/stamp")" != "$stamp" ] || return 0
        say "sources changed: bringing .venvs/$name up to date ..."
    else
        python=$(find_python)
        say "making the environment .venvs/$name with $python (once; a minute or more) ..."
        "$python" -m venv --clear "$folder" || fail "$python cannot make virtual environments (see above)"
    fi
    rm -f "$folder/stamp"
    "$folder/bin/python" -m pip --disable-pip-version-check install -qq "$@" >&2 ||
        fail "pip install $* failed (see above)"
    printf '%s\n' "$stamp" >"$folder/stamp"
}

# The environment of lint, tests and docs, .venvs/test, with torch.
test_environment() {
    environment test "pyproject.toml CMakeLists.txt runtimes/native" --editable "${root}[dev]"
}

# Tools that read our files without importing them do not follow the import hook of an editable install: they see the
# package in build/typing, as links to our folders. The face is copied, because its relative imports start there.
link_package() {
    local package=$root/build/typing/pocketprior layer
    rm -rf "$package"
    mkdir -p "$package"
    cp "$root"/pocketprior/*.py "$root/pocketprior/py.typed" "$package"
    for layer in core kernels distill export runtimes; do
        ln -s "../../../$layer" "$package/$layer"
    done
}
