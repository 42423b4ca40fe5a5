# SPDX-License-Identifier: LGPL-2.1-or-later
# The Debian packages that the project needs.  Sourced by ./demo and ./test.

K42_BUILD_PACKAGES=(gcc libc6-dev meson ninja-build pkgconf fuse3 libfuse3-dev libglib2.0-dev
    libjson-glib-dev libsqlite3-dev libncurses-dev)
K42_DEMO_PACKAGES=(sqlite3 python3-minimal python3 util-linux procps)
K42_TEST_PACKAGES=(bats acl attr rsync perl git python3 sqlite3 e2fsprogs util-linux procps
    strace make binutils mandoc xz-utils graphviz python3-numpy python3-h5py
    systemd)

# k42_need PACKAGE…: installs what is missing, when root; otherwise says what to install and fails.
k42_need() {
    local missing=() p
    for p in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "missing packages; as root: apt-get install ${missing[*]}" >&2
        return 1
    fi
    echo "installing: ${missing[*]}"
    apt-get update -qq >/dev/null &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            "${missing[@]}" >/dev/null
}
