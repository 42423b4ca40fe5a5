#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# The unit, as it is installed, under a real systemd: when it is ready, and what a mount survives.

load lib
load service/systemd.bash

setup() {
    k42_skip_unless_fuse
    k42_scratch
    sd_skip_unless_possible
    echo there >"$S/src/there"
    sd_start
}
teardown() {
    sd_end || LEFT=1
    k42_cleanup || LEFT=1
    [ -z "${LEFT:-}" ]
}

# holder_changed PID: waits until the service has another main process than that, and is ready.
holder_changed() {
    local i
    for ((i = 0; i < 200; i++)); do
        HOLDER=$(sd_property MainPID)
        [ "$HOLDER" != 0 ] && [ "$HOLDER" != "$1" ] && [ "$(sd_property ActiveState)" = active ] && return 0
        sleep 0.05
    done
    sd_do systemctl status --no-pager k42fs@test
    return 1
}

@test "systemd: started means that the mount answers, and stopped that nothing is left" {
    local i
    for i in 1 2; do
        sd_do systemctl start k42fs@test
        # no waiting: it is there
        [ "$(sd_do cat "$S/mnt/there")" = there ]
        [ "$(sd_do systemctl is-active k42fs@test)" = active ]
        sd_do k42ctl status "$S/mnt" | grep -q "^holder_pid: $(sd_property MainPID)\$"
        sd_do systemctl stop k42fs@test
        [ "$(sd_property ActiveState)" = inactive ]
        [ "$(sd_property Result)" = success ]
        [ "$(sd_property NFileDescriptorStore)" = 0 ]
        run ! sd_do mountpoint -q "$S/mnt"
        run ! sd_do pgrep k42fs
        [ -z "$(sd_do sh -c 'ls -A /run/k42fs 2>/dev/null')" ]
        [ ! -s "$S/log.service" ]
    done
}

@test "systemd: a service that cannot start says why, and leaves nothing" {
    echo 'SOURCE=/nonexistent' >>"$S/etc/k42fs/test.conf"
    run ! sd_do systemctl start k42fs@test
    [ "$(sd_property NFileDescriptorStore)" = 0 ]
    cat "$S/log.service"
    grep -q '^k42fs: /nonexistent: .*No such file' "$S/log.service"
    run ! sd_do mountpoint -q "$S/mnt"
}

@test "systemd: restarts and kill -9 of the holder, while files are used" {
    local reader status=0 i
    sd_do systemctl start k42fs@test
    sd_do python3 "$K42_TESTS/service/reader.py" "$S/mnt" "$S/stop" >"$S/reader" 2>&1 3>&- &
    reader=$!
    for ((i = 0; i < 100; i++)); do [ -e "$S/src/held" ] && break; sleep 0.05; done
    for i in 1 2; do
        HOLDER=$(sd_property MainPID)
        sd_do systemctl restart k42fs@test
        holder_changed "$HOLDER"
        sd_do kill -KILL "$HOLDER"
        holder_changed "$HOLDER"
        [ "$(sd_property NRestarts)" -ge 1 ]
        [ "$(sd_do grep -c " $S/mnt fuse" /proc/mounts)" = 1 ]
    done
    touch "$S/stop"
    wait "$reader" || status=$?
    cat "$S/reader"
    [ "$status" = 0 ]
    echo "# $(tail -n 1 "$S/reader")" >&3
    sd_do systemctl stop k42fs@test
    run ! sd_do mountpoint -q "$S/mnt"
    run ! sd_do pgrep k42fs
}
