#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# What is written is what is read: random operations against a model, descriptors of all classes on one
# inode, appends beside truncations, and attributes that are true at once.  The programs are in
# tests/data; each has to pass in the backing directory itself, too.
#
#   K42_DATA_SECONDS   how long each of the random tests runs (default: 4)
#   K42_DATA_SEED      the seed of random_io (default: another one each time; it is in the report)

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
    SECS=${K42_DATA_SECONDS:-4}
    SEED=${K42_DATA_SEED:+--seed=$K42_DATA_SEED}
    # where an ordinary user can run them, and write
    mkdir "$S/bin" "$S/src/user"
    cp "$K42_BUILD"/tests/data/{random_io,mixed,appends,fresh} "$S/bin"
    [ "$(id -u)" != 0 ] || chown $NOBODY:$NOBODY "$S/src/user"
}
teardown() { k42_cleanup; }

as_nobody() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid $NOBODY --regid $NOBODY --clear-groups -- "$@"
    else
        "$@"
    fi
}

# in_time COMMAND…: it ends by itself, or is ended.
in_time() { timeout -k 5 $((SECS * 3 + 60)) "$@"; }

# both NAME COMMAND…: at the same time as whoever we are on $S/mnt/NAME, and as an ordinary user on
# $S/mnt/user/NAME; the words MNT and SRC in COMMAND stand for the file on the mount and behind it.
both() {
    local name=$1 user bad=0
    shift
    local first=("${@//MNT/$S/mnt/$name}") second=("${@//MNT/$S/mnt/user/$name}")
    first=("${first[@]//SRC/$S/src/$name}")
    second=("${second[@]//SRC/$S/src/user/$name}")
    as_nobody timeout -k 5 $((SECS * 3 + 60)) "${second[@]}" >"$S/user.out" 2>&1 3>&- &
    user=$!
    in_time "${first[@]}" 2>&1 || bad=1
    wait "$user" || { echo "as an ordinary user:"; bad=1; }
    cat "$S/user.out"
    return $bad
}

# --- random operations

@test "random operations in the backing directory itself" {
    in_time "$S/bin/random_io" --seconds=2 $SEED "$S/src/f"
}

@test "random operations: a wrong bit is found, and found again with the same seed" {
    local seed
    for where in src mnt; do
        [ $where = src ] || k42_mount
        run -1 in_time "$S/bin/random_io" --ops=3000 --spoil=1000 "--source=$S/src/f" "$S/$where/f"
        [[ $output == *MISMATCH* ]]
        [[ $output =~ again\ with\ (--seed=[0-9]+)\ (--ops=[0-9]+) ]]
        local again=("${BASH_REMATCH[@]:1}") said=${output##*MISMATCH}
        rm "$S/src/f"
        run -1 in_time "$S/bin/random_io" "${again[@]}" --spoil=1000 "--source=$S/src/f" "$S/$where/f"
        [ "${output##*MISMATCH}" = "$said" ]
        rm "$S/src/f"
        # and nothing is when nothing is spoilt
        in_time "$S/bin/random_io" "${again[@]}" "--source=$S/src/f" "$S/$where/f"
    done
}

random_operations() { # OPTIONS [ARGUMENTS…]
    k42_mount -o "$1"
    shift
    both random "$S/bin/random_io" "--seconds=$SECS" $SEED "$@" --source=SRC MNT
    k42_counts_zero
    k42_check
}

@test "random operations, io=auto" {
    random_operations io=auto
}

@test "random operations, io=fast, attributes believed for an hour" {
    [ "$(id -u)" = 0 ] || skip "needs root: io=fast"
    random_operations io=fast,attr_timeout=3600,entry_timeout=3600
}

@test "random operations, io=cached" {
    random_operations io=cached --sync-maps
}

@test "random operations, io=counted, attributes believed for an hour" {
    random_operations io=counted,attr_timeout=3600,entry_timeout=3600 --sync-maps
}

# --- descriptors of all classes on one inode

@test "descriptors of all kinds on one file, in the backing directory itself" {
    in_time "$S/bin/mixed" --seconds=2 "--source=$S/src/f" "$S/src/f"
    in_time "$S/bin/mixed" --seconds=1 --first=append "$S/src/f"
    # and the test can fail
    run -1 in_time "$S/bin/mixed" --seconds=5 --spoil "$S/src/f"
    [[ $output == *"are right"* ]]
}

# all_kinds OPTIONS [ARGUMENTS…]: also where the first descriptor is an appending and mapped one
all_kinds() {
    k42_mount -o "$1"
    shift
    both mixed "$S/bin/mixed" "--seconds=$((SECS / 2))" "$@" MNT
    both mixed "$S/bin/mixed" "--seconds=$((SECS / 2))" "$@" --first=append MNT
    k42_counts_zero
    k42_check
}

@test "descriptors of all kinds on one file, io=auto, and on the file behind" {
    [ "$(id -u)" = 0 ] || skip "needs root: without passthrough a mapping is kept apart from SOURCE"
    all_kinds io=auto --source=SRC
}

@test "descriptors of all kinds on one file, io=fast, and on the file behind" {
    [ "$(id -u)" = 0 ] || skip "needs root: io=fast"
    all_kinds io=fast --source=SRC
}

@test "descriptors of all kinds on one file, io=counted" {
    all_kinds io=counted
}

# Whoever reads a page while another writes it, and a third makes the kernel empty the file's cache, can see
# for some milliseconds what was there before (FUSE's race, seen on other FUSE mounts, too).
@test "descriptors of all kinds on one file, io=cached, and nothing old for long" {
    all_kinds io=cached --grace=2
    k42_umount
    all_kinds io=cached,nocoherent,attr_timeout=3600,entry_timeout=3600 --grace=2
    k42_umount
}

# --- appends

@test "appends beside truncations in the backing directory itself" {
    in_time "$S/bin/appends" --seconds=1 --outside=2 "--source=$S/src/f" "$S/src/f"
    in_time "$S/bin/appends" --seconds=1 --truncate "$S/src/f"
    # and the test can fail
    run -1 in_time "$S/bin/appends" --seconds=1 --spoil "$S/src/f"
    [[ $output == *"comes where"* ]]
}

appending() { # OPTIONS [ARGUMENTS…]
    k42_mount -o "$1"
    shift
    both appends "$S/bin/appends" --seconds=1 "$@" MNT
    both appends "$S/bin/appends" --seconds=1 "$@" --truncate MNT
    both appends "$S/bin/appends" --seconds=1 "$@" --outside=2 --source=SRC MNT
    both appends "$S/bin/appends" --seconds=1 "$@" --outside=2 --source=SRC --truncate MNT
    k42_counts_zero
    k42_check
}

@test "no record is lost or torn, io=auto" {
    appending io=auto
}

@test "no record is lost or torn, io=fast" {
    [ "$(id -u)" = 0 ] || skip "needs root: io=fast"
    appending io=fast
}

@test "no record is lost or torn, io=counted" {
    appending io=counted
}

# The kernel sends a write that crosses pages in pieces in this class; between two of them others can append
# behind the mount.
@test "no record is lost or torn, io=cached, where records do not cross pages" {
    appending io=cached --words=16
}

# --- attributes

@test "attributes in the backing directory itself" {
    "$S/bin/fresh" "$S/src/f" "$S/src/f"
    run -1 "$S/bin/fresh" --spoil "$S/src/g" "$S/src/g"
    [[ $output == *"write: fstat says"* ]]
}

# fresh_with OPTIONS [ARGUMENTS…]: as long as everything is believed, as by default, and for a second
fresh_with() {
    local io=$1 timeout
    shift
    for timeout in nocoherent,attr_timeout=3600,entry_timeout=3600 coherent nocoherent,attr_timeout=1; do
        [ "$timeout" != coherent ] || [ "$(id -u)" = 0 ] || continue
        k42_mount -o "io=$io,$timeout"
        both fresh "$S/bin/fresh" "$@" MNT SRC
        k42_umount
    done
}

@test "attributes are true at once after a change, io=auto" {
    fresh_with auto --limit=3
}

@test "attributes are true at once after a change, io=fast" {
    [ "$(id -u)" = 0 ] || skip "needs root: io=fast"
    fresh_with fast --limit=3
}

@test "attributes are true at once after a change, io=counted" {
    fresh_with counted
}

@test "attributes are true at once after a change, io=cached" {
    fresh_with cached --cached
}

@test "opened for reading again and again: no descriptor of the daemon's, until one is needed" {
    local io
    mkdir "$S/native"
    timeout 60 python3 "$K42_TESTS/data/joined.py" "$S/native" "$S/native" >"$S/expected"
    for io in fast cached counted; do
        k42_mount -o "io=$io"
        [ "$io" = fast ] && [ "$(id -u)" = 0 ] || unset K42_WORKER
        timeout 60 python3 "$K42_TESTS/data/joined.py" "$S/mnt" "$S/src" >"$S/said"
        diff "$S/expected" "$S/said"
        k42_counts_zero
        k42_umount
    done
}
