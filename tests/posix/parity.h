/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * parity: the same system calls in two directories, and the two transcripts compared.
 *
 * A group is a function that runs with a fresh, empty directory as its working directory, in a
 * process of its own (so it may change umask, limits, ids and signals as it likes).  It makes
 * *steps*: a name, and a text that says what happened.  The text must not hold what differs between
 * any two directories of one file system: inode and device numbers, times, absolute paths.
 * Relations between them may.
 *
 * Steps are compared by name, so a name must be unique in its group; a second one of the same name
 * gets "#2" behind it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define N_ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))

/* The ordinary user that root becomes where a group needs one, and a group that he is not in. */
#define OTHER_UID 65534
#define OTHER_GID 65534
#define THIRD_ID  12345

struct run {
        const char *top;  /* absolute path of the working directory */
        const char *self; /* absolute path of this program, for execve */
        int out;          /* the transcript: O_APPEND, shared with children */
        bool root;        /* we are uid 0 */
        char name[256];   /* of the step under way; empty: none */
        char text[16384];
        size_t len;
};

struct parity_group {
        const char *name;
        void (*run)(struct run *r);
};

/* Every group is a function group_NAME() in one of the files named after what it is about. */
#define PARITY_GROUPS(X)                                                                           \
        X(open_matrix)                                                                             \
        X(open_path)                                                                               \
        X(open_tmpfile)                                                                            \
        X(open_names)                                                                              \
        X(openat2)                                                                                 \
        X(read)                                                                                    \
        X(write)                                                                                   \
        X(append)                                                                                  \
        X(vectors)                                                                                 \
        X(direct)                                                                                  \
        X(offsets)                                                                                 \
        X(times)                                                                                   \
        X(truncate)                                                                                \
        X(fallocate)                                                                               \
        X(holes)                                                                                   \
        X(copy_range)                                                                              \
        X(sendfile)                                                                                \
        X(limits)                                                                                  \
        X(mmap)                                                                                    \
        X(sync)                                                                                    \
        X(mkdir)                                                                                   \
        X(mknod)                                                                                   \
        X(symlink)                                                                                 \
        X(link)                                                                                    \
        X(unlink)                                                                                  \
        X(names)                                                                                   \
        X(deep)                                                                                    \
        X(cwd)                                                                                     \
        X(rename_types)                                                                            \
        X(rename_more)                                                                             \
        X(rename_flags)                                                                            \
        X(readdir)                                                                                 \
        X(readdir_large)                                                                           \
        X(readdir_changing)                                                                        \
        X(chmod)                                                                                   \
        X(chown)                                                                                   \
        X(suid_clear)                                                                              \
        X(umask)                                                                                   \
        X(setgid_dir)                                                                              \
        X(utimens)                                                                                 \
        X(stat)                                                                                    \
        X(xattr)                                                                                   \
        X(xattr_sizes)                                                                             \
        X(acl)                                                                                     \
        X(acl_default)                                                                             \
        X(access)                                                                                  \
        X(permissions)                                                                             \
        X(sticky)                                                                                  \
        X(statfs)                                                                                  \
        X(ioctl)                                                                                   \
        X(fcntl)                                                                                   \
        X(flock)                                                                                   \
        X(posix_locks)                                                                             \
        X(ofd_locks)                                                                               \
        X(lease)                                                                                   \
        X(inotify)                                                                                 \
        X(poll)                                                                                    \
        X(fifo)                                                                                    \
        X(unix_socket)                                                                             \
        X(device)                                                                                  \
        X(exec)                                                                                    \
        X(setuid_exec)                                                                             \
        X(proc_fd)                                                                                 \
        X(handles)

#define X(name) void group_##name(struct run *r);
PARITY_GROUPS(X)
#undef X

/* Begins a step. */
void step(struct run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Adds to the text of the step under way. */
void rec(struct run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Writes the step under way, so that a child may be forked, or the process may end. */
void flush_step(struct run *r);

/* Adds "= value" or "= -1 ENAME" (errno). */
void rec_result(struct run *r, long value);
/* Adds "= fd" or "= -1 ENAME". */
void rec_fd(struct run *r, int fd);
/* Adds length, hash and beginning of `n` bytes; nothing when n < 0. */
void rec_data(struct run *r, const void *data, ssize_t n);
/* Adds `text` with the working directory's path replaced by TOP. */
void rec_path(struct run *r, const char *text);
/* Adds what may be compared of a struct stat. */
void rec_stat(struct run *r, const struct stat *st);
/* Adds st_blocks, once the data is allocated. */
void rec_blocks(struct run *r, int fd);
void rec_lstat(struct run *r, const char *path);
void rec_fstat(struct run *r, int fd);
void rec_mode(struct run *r, const char *path); /* mode bits only, of lstat() */
/* Adds the content of a file. */
void rec_file(struct run *r, const char *path);
/* Adds the sorted entries of a directory with a letter for their d_type. */
void rec_listing(struct run *r, const char *path);
/* Adds how a child ended. */
void rec_status(struct run *r, int status);

/* A call is a step: SAY(r, rmdir("x"), "rmdir of %s", "x").  The value is the call's. */
#define SAY(r, call, ...)                                                                          \
        ({                                                                                         \
                long said_;                                                                        \
                step(r, __VA_ARGS__);                                                              \
                errno = 0;                                                                         \
                said_ = (long)(call);                                                              \
                rec_result(r, said_);                                                              \
                said_;                                                                             \
        })
/* The same for a call that returns a descriptor, whose number is not compared. */
#define FD(r, call, ...)                                                                           \
        ({                                                                                         \
                int said_;                                                                         \
                step(r, __VA_ARGS__);                                                              \
                errno = 0;                                                                         \
                said_ = (int)(call);                                                               \
                rec_fd(r, said_);                                                                  \
                said_;                                                                             \
        })
/* A child is a step: the first argument runs it, and may make steps of its own. */
#define STATUS(r, child, ...)                                                                      \
        do {                                                                                       \
                int status_ = (child);                                                             \
                step(r, __VA_ARGS__);                                                              \
                rec_status(r, status_);                                                            \
        } while (0)
/* Preparation: leaves a step only when it fails. */
#define SET(r, call)                                                                               \
        ({                                                                                         \
                long set_ = (long)(call);                                                          \
                if (set_ < 0)                                                                      \
                        set_failed(r, #call, __LINE__);                                            \
                set_;                                                                              \
        })
void set_failed(struct run *r, const char *call, int line);

/* Makes (or replaces the content of) a file; `put_n` fills it with the pattern. */
void put(struct run *r, const char *path, const char *content);
void put_n(struct run *r, const char *path, size_t size);
/* Byte i of the pattern is a function of i alone, so that data that moved is noticed. */
void pattern(void *buffer, size_t n, uint64_t offset);

/* An address that no process has, so that compilers cannot see it. */
void *bad_address(void);

/* Times: remember(), do something, rec_changes() adds which of a, m and c changed. */
struct remembered {
        struct timespec a, m, c;
};
struct remembered remember(const char *path); /* of lstat(); waits for the clock to move on */
void rec_changes(struct run *r, const struct remembered *before, const char *path);

/* Runs `act` in a forked child, which may record steps, and waits.  `as_other` changes to OTHER_UID
 * and OTHER_GID first when we are root.  Returns the wait status. */
int in_child(struct run *r, void (*act)(struct run *r, void *data), void *data);
int as_other(struct run *r, void (*act)(struct run *r, void *data), void *data);

/* The same beside us: returns at once with the child's pid, for waitpid(). */
pid_t beside(struct run *r, void (*act)(struct run *r, void *data), void *data);
