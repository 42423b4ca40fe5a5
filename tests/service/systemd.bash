# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced by tests/84-systemd.bats: a systemd of the test's own, as process 1 of a pid namespace, which knows the
# installed unit and nothing else.  Its files are in $S.

SD_CGROUPS=

# The cgroup2 hierarchy, or nothing; some machines have it beside the older ones.
cgroup2_at() { awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts; }

sd_skip_unless_possible() {
    need_root "for a systemd in namespaces of its own"
    [ -x /lib/systemd/systemd ] && command -v systemctl nsenter >/dev/null || skip "no systemd"
    [ -n "$(cgroup2_at)" ] || skip "no cgroup2 hierarchy"
    unshare --pid --mount --cgroup --ipc --uts --fork true 2>/dev/null || skip "cannot make namespaces"
    command -v meson >/dev/null && [ -e "$K42_BUILD/build.ninja" ] || skip "no meson to install with"
}

# Process 1 of the namespaces, until it is systemd.
sd_process_one() {
    set -e
    local at
    k42_give_back_mounts
    mount -t proc proc /proc
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs /run
    mount --bind "$S/etc" /etc
    at=$(sed -n 's,^ExecStart=\(.*\)/k42fs .*,\1,p' "$S/units/k42fs@.service") # where the unit has its programs
    mount --bind "$S/install$at" "$at"
    exec env -i PATH="$PATH" container=k42test SYSTEMD_UNIT_PATH="$S/units" SYSTEMD_GENERATOR_PATH=/nonexistent \
        /lib/systemd/systemd --system --unit=k42test.target --show-status=no --log-target=console \
        --log-level=info
}

# sd_start: systemd runs, and sd_do COMMAND… runs a command beside it.
sd_start() {
    local t i
    DESTDIR=$S/install meson install -C "$K42_BUILD" --no-rebuild >/dev/null 2>&1
    mkdir "$S/units"
    find "$S/install" -name 'k42fs@.service' -exec cp {} "$S/units" \;
    [ -e "$S/units/k42fs@.service" ]
    mkdir "$S/units/k42fs@.service.d" # there is no journal
    printf '[Service]\nStandardError=append:%s/log.service\n' "$S" >"$S/units/k42fs@.service.d/log.conf"
    for t in sysinit basic shutdown local-fs multi-user umount k42test; do
        printf '[Unit]\nDefaultDependencies=no\n' >"$S/units/$t.target"
    done
    cp -a /etc "$S/etc"
    mkdir -p "$S/etc/k42fs"
    printf 'SOURCE=%s\nMOUNTPOINT=%s\n' "$S/src" "$S/mnt" >"$S/etc/k42fs/test.conf"
    SD_CGROUPS=$(cgroup2_at)/k42test.$$
    mkdir "$SD_CGROUPS" || skip "cannot make a cgroup"
    export -f sd_process_one k42_give_back_mounts
    export SD_CGROUPS
    bash -c 'echo $$ >"$SD_CGROUPS/cgroup.procs" && exec timeout -k 5 300 unshare --pid --mount --fork --kill-child \
        --cgroup --ipc --uts --propagation private bash -c sd_process_one' >"$S/systemd" 2>&1 </dev/null 3>&- &
    SD_KEEPER=$!
    for ((i = 0; i < 200; i++)); do
        SD_INIT=$(pgrep -P "$(pgrep -P "$SD_KEEPER" | head -n 1)" -x systemd 2>/dev/null) &&
            sd_do systemctl is-system-running >/dev/null 2>&1 && return 0
        kill -0 "$SD_KEEPER" 2>/dev/null || break
        sleep 0.05
    done
    cat "$S/systemd"
    skip "systemd does not run in namespaces on this machine"
}

sd_do() { timeout 60 nsenter -t "$SD_INIT" -m -p -C -i -u -- "$@"; }

# sd_property NAME: of the service.
sd_property() { sd_do systemctl show -p "$1" --value k42fs@test; }

# Ends all of it; the namespace's mounts and processes go with its process 1.
sd_end() {
    local i
    [ -z "${SD_INIT:-}" ] || kill -KILL "$SD_INIT" 2>/dev/null || true
    [ -z "${SD_KEEPER:-}" ] || wait "$SD_KEEPER" 2>/dev/null || true
    [ -n "$SD_CGROUPS" ] || return 0
    for ((i = 0; i < 100; i++)); do
        find "$SD_CGROUPS" -depth -type d -exec rmdir {} \; 2>/dev/null
        [ -e "$SD_CGROUPS" ] || return 0
        sleep 0.05
    done
    echo "LEFT: $SD_CGROUPS: $(cat "$SD_CGROUPS/cgroup.procs")" >&2
    return 1
}
