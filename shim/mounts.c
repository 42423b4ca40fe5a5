/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which mounts are k42fs's, from /proc/self/mountinfo: no message, and no guess from a device number,
 * which all file systems without a disk share the range of.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lazy/protocol.h"
#include "shim/private.h"

#define KNOWN_MAX  64
#define BUFFER     (256 * 1024) /* a line has two paths, a source and options */
#define FS_TYPE    " - fuse.k42fs "
#define SEPARATOR  " - "

enum verdict {
        VERDICT_NONE,
        VERDICT_OTHER,
        VERDICT_OURS,
        VERDICT_MARKED,
        VERDICT_UNKNOWN,
};

/* By mount id, which a newer kernel never uses again. */
static struct {
        uint64_t mount_id;
        uint32_t device;
        enum verdict verdict;
} known[KNOWN_MAX];
static unsigned known_next;

/* What a line, NUL-terminated, says about device 0:`device`. */
static enum verdict judge_line(const char *line, uint32_t device)
{
        const char *at = line, *type;
        uint32_t number = 0;

        for (int field = 0; field < 2; field++) {
                at = strchr(at, ' ');
                if (!at)
                        return VERDICT_NONE;
                at++;
        }
        if (at[0] != '0' || at[1] != ':')
                return VERDICT_NONE;
        for (at += 2; *at >= '0' && *at <= '9'; at++)
                number = 10 * number + (uint32_t)(*at - '0');
        if (*at != ' ' || number != device)
                return VERDICT_NONE;
        type = strstr(at, SEPARATOR); /* paths have their spaces escaped */
        if (!type || strncmp(type, FS_TYPE, sizeof FS_TYPE - 1) != 0)
                return VERDICT_OTHER;
        return strstr(type, "," K42_FORK_MARK) ? VERDICT_MARKED : VERDICT_OURS;
}

/* The lines that are whole in buf[0 … n), taken away from it; `ret_rest` is what is left. */
static enum verdict judge_lines(char *buf, size_t n, uint32_t device, size_t *ret_rest)
{
        enum verdict verdict = VERDICT_NONE;
        char *line = buf, *end;

        while (verdict == VERDICT_NONE && (end = memchr(line, '\n', n - (size_t)(line - buf)))) {
                *end = '\0';
                verdict = judge_line(line, device);
                line = end + 1;
        }
        *ret_rest = n - (size_t)(line - buf);
        memmove(buf, line, *ret_rest);
        return verdict;
}

static enum verdict read_mountinfo(uint32_t device)
{
        enum verdict verdict = VERDICT_NONE;
        const int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/mountinfo",
                                    O_RDONLY | O_CLOEXEC, 0);
        char *buf = fd < 0 ? MAP_FAILED
                           : mmap(NULL, BUFFER, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        size_t have = 0;
        long n;

        if (buf != MAP_FAILED) {
                while (verdict == VERDICT_NONE && have < BUFFER &&
                       (n = syscall(SYS_read, fd, buf + have, BUFFER - have)) > 0)
                        verdict = judge_lines(buf, have + (size_t)n, device, &have);
                munmap(buf, BUFFER);
        }
        if (fd >= 0)
                syscall(SYS_close, fd);
        /* Not in this namespace, or taken off lazily: it may be one of ours. */
        return verdict == VERDICT_NONE ? VERDICT_UNKNOWN : verdict;
}

bool mounts_is_ours(uint32_t device, uint64_t mount_id, bool marked)
{
        enum verdict verdict = VERDICT_NONE;

        for (unsigned i = 0; i < KNOWN_MAX && verdict == VERDICT_NONE; i++)
                if (known[i].verdict != VERDICT_NONE && known[i].mount_id == mount_id &&
                    known[i].device == device)
                        verdict = known[i].verdict;
        if (verdict == VERDICT_NONE) {
                verdict = read_mountinfo(device);
                known[known_next].mount_id = mount_id;
                known[known_next].device = device;
                known[known_next].verdict = verdict;
                known_next = (known_next + 1) % KNOWN_MAX;
        }
        return verdict == VERDICT_MARKED || verdict == VERDICT_UNKNOWN ||
               (verdict == VERDICT_OURS && !marked);
}
