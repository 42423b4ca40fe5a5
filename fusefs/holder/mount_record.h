/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * mount_record: the file `mount` in the state directory, what a holder must know of a mount that another
 * one has begun; and by its lock, whether a worker lives.
 *
 * The holder writes it.  A worker has a POSIX lock on it for its life, which names its process and ends
 * with it.
 */
#include <limits.h>
#include <stdint.h>

#define MOUNT_RECORD_VERSION 1

struct mount_record {
        uint32_t version; /* MOUNT_RECORD_VERSION */
        uint32_t resume;  /* some worker has been ready */
        uint64_t dev;     /* of the mount */
        int64_t started;  /* µs since the epoch */
        uint32_t restarts, upgrades, downgrades;
        uint32_t reserved;
        char last_death[128];
        char mountpoint[PATH_MAX];
        char source[PATH_MAX];
};

/* Makes the file, or opens it if it is there.  Returns a descriptor (O_CLOEXEC) or -errno. */
int mount_record_open(int state_fd);

/* Returns 0 or -errno: -EPROTO for another version, -EBADMSG for what is none. */
int mount_record_read(int fd, struct mount_record *ret_record);
int mount_record_write(int fd, const struct mount_record *record);

/* The worker's.  Closing any descriptor of the file in this process ends the lock. */
int mount_record_lock(int fd);

/* A new holder's: kills the worker that lives, if there is one, and waits for its full death. */
void mount_record_end_worker(int fd);
