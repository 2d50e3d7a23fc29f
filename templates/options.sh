# shellcheck shell=bash disable=SC2034  # what is read here the sourcing script uses
# What build.sh and project.sh share: how they fail, show what they run, and read an option. Sourced by both, in which
# dry_run says whether anything is done.

fail() {
    echo "${0##*/}: $1" >&2
    exit 2
}

# Run a command and show it; with --dry-run show it.
run() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    [[ -n $dry_run ]] || "$@"
}

# Read `--flag=value` or `--flag value` into flag and value, and into taken how many words that was.
read_option() {
    [[ $1 == --* ]] || fail "what is '$1'? see --help"
    flag=${1%%=*}
    if [[ $1 == *=* ]]; then
        value=${1#*=} taken=1
    else
        (($# >= 2)) || fail "$flag wants a value"
        value=$2 taken=2
    fi
}
