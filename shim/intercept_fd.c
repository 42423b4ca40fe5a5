/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The wrappers that make and end descriptors.  What they tell the tables is said after the real
 * call for a new descriptor, and before it for one that goes (fd_table.h has the reason).
 */
#include <errno.h>
#include <linux/close_range.h>
#include <stdarg.h>
#include <string.h>

#include "shim/account.h"
#include "shim/fd_table.h"
#include "shim/private.h"
#include "shim/real.h"
#include "shim/touch.h"

/* The mode argument is there only with these flags. */
#define MODE_OF(flags, last)                                                                       \
        ({                                                                                         \
                mode_t mode_ = 0;                                                                  \
                if (((flags)&O_CREAT) || ((flags)&O_TMPFILE) == O_TMPFILE) {                       \
                        va_list ap_;                                                               \
                        va_start(ap_, last);                                                       \
                        mode_ = va_arg(ap_, mode_t);                                               \
                        va_end(ap_);                                                               \
                }                                                                                  \
                mode_;                                                                             \
        })

static int opened(int fd, bool close_on_exec)
{
        if (fd >= 0)
                fd_table_opened(fd, close_on_exec);
        return fd;
}

#define WRAP_OPEN(name)                                                                            \
        EXPORT int name(const char *path, int flags, ...)                                          \
        {                                                                                          \
                const mode_t mode = MODE_OF(flags, flags);                                         \
                account_expect();                                                                  \
                return opened(REAL(name)(path, flags, mode), flags & O_CLOEXEC);                   \
        }
#define WRAP_OPENAT(name)                                                                          \
        EXPORT int name(int dir, const char *path, int flags, ...)                                 \
        {                                                                                          \
                const mode_t mode = MODE_OF(flags, flags);                                         \
                account_expect();                                                                  \
                return opened(REAL(name)(dir, path, flags, mode), flags & O_CLOEXEC);              \
        }
#define WRAP_MAKE(name, params, args, close_on_exec)                                               \
        EXPORT int name params;                                                                    \
        int name params                                                                            \
        {                                                                                          \
                account_expect();                                                                  \
                return opened(REAL(name) args, close_on_exec);                                     \
        }

int __open(const char *path, int flags, ...);
int __open64(const char *path, int flags, ...);
int __close(int fd);
int __dup2(int from, int to);
int __fcntl(int fd, int command, ...);

WRAP_OPEN(open)
WRAP_OPEN(open64)
WRAP_OPEN(__open)
WRAP_OPEN(__open64)
WRAP_OPENAT(openat)
WRAP_OPENAT(openat64)
WRAP_MAKE(__open_2, (const char *path, int flags), (path, flags), flags &O_CLOEXEC)
WRAP_MAKE(__open64_2, (const char *path, int flags), (path, flags), flags &O_CLOEXEC)
WRAP_MAKE(__openat_2, (int dir, const char *path, int flags), (dir, path, flags), flags &O_CLOEXEC)
WRAP_MAKE(__openat64_2, (int dir, const char *path, int flags), (dir, path, flags),
          flags &O_CLOEXEC)
WRAP_MAKE(creat, (const char *path, mode_t mode), (path, mode), false)
WRAP_MAKE(creat64, (const char *path, mode_t mode), (path, mode), false)
WRAP_MAKE(open_by_handle_at, (int mount, struct file_handle *handle, int flags),
          (mount, handle, flags), flags &O_CLOEXEC)
WRAP_MAKE(mkstemp, (char *template), (template), false)
WRAP_MAKE(mkstemp64, (char *template), (template), false)
WRAP_MAKE(mkostemp, (char *template, int flags), (template, flags), flags &O_CLOEXEC)
WRAP_MAKE(mkostemp64, (char *template, int flags), (template, flags), flags &O_CLOEXEC)
WRAP_MAKE(mkstemps, (char *template, int suffix), (template, suffix), false)
WRAP_MAKE(mkstemps64, (char *template, int suffix), (template, suffix), false)
WRAP_MAKE(mkostemps, (char *template, int suffix, int flags), (template, suffix, flags),
          flags &O_CLOEXEC)
WRAP_MAKE(mkostemps64, (char *template, int suffix, int flags), (template, suffix, flags),
          flags &O_CLOEXEC)

#define WRAP_CLOSE(name)                                                                           \
        EXPORT int name(int fd)                                                                    \
        {                                                                                          \
                fd_table_closing(fd);                                                              \
                return REAL(name)(fd);                                                             \
        }
WRAP_CLOSE(close)
WRAP_CLOSE(__close)

EXPORT int closedir(DIR *dir)
{
        if (dir)
                fd_table_closing(dirfd(dir));
        return REAL(closedir)(dir);
}

EXPORT void closefrom(int first)
{
        fd_table_closing_range(first < 0 ? 0 : (unsigned)first, UINT32_MAX);
        REAL(closefrom)(first);
}

EXPORT int close_range(unsigned first, unsigned last, int flags)
{
        int r;

        if (!(flags & CLOSE_RANGE_CLOEXEC)) {
                fd_table_closing_range(first, last);
                return REAL(close_range)(first, last, flags);
        }
        r = REAL(close_range)(first, last, flags);
        if (r == 0)
                fd_table_set_coe_range(first, last);
        return r;
}

static int duped(int from, int to, bool close_on_exec)
{
        if (to >= 0)
                fd_table_duped(from, to, close_on_exec);
        return to;
}

EXPORT int dup(int from)
{
        return duped(from, REAL(dup)(from), false);
}

#define WRAP_DUP2(name)                                                                            \
        EXPORT int name(int from, int to)                                                          \
        {                                                                                          \
                if (from != to)                                                                    \
                        fd_table_closing(to);                                                      \
                return duped(from, REAL(name)(from, to), false);                                   \
        }
WRAP_DUP2(dup2)
WRAP_DUP2(__dup2)

EXPORT int dup3(int from, int to, int flags)
{
        if (from != to)
                fd_table_closing(to);
        return duped(from, REAL(dup3)(from, to, flags), flags & O_CLOEXEC);
}

static bool locks(int command)
{
        return command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK ||
               command == F_OFD_SETLKW;
}

static bool posix_locks(int command)
{
        return command == F_SETLK || command == F_SETLKW;
}

/* Locks do, as flock() does; and status flags, where they are to become the child's own.  The other
 * commands are about the tables. */
static bool touches(int fd, int command)
{
        return locks(command) || (command == F_SETFL && private_pending(fd));
}

static int command_touch(int fd, int command)
{
        int r = posix_locks(command) ? private_before_lock(fd) : 0;

        if (r < 0) {
                errno = -r;
                return -1;
        }
        return touch(fd);
}

#define WRAP_LOCKF(name, type)                                                                     \
        EXPORT int name(int fd, int command, type n)                                               \
        {                                                                                          \
                if (command_touch(fd, F_SETLK) < 0)                                                \
                        return -1;                                                                 \
                return REAL(name)(fd, command, n);                                                 \
        }
WRAP_LOCKF(lockf, off_t)
WRAP_LOCKF(lockf64, off64_t)

/* After the fact: what a command means for the tables. */
static int fcntl_done(int fd, int command, long arg, int r)
{
        if (r < 0)
                return r;
        if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
                fd_table_duped(fd, r, command == F_DUPFD_CLOEXEC);
        else if (command == F_SETFD)
                fd_table_set_coe(fd, arg & FD_CLOEXEC);
        return r;
}

/* The third argument is an int, a long or a pointer, or is not there: as a long it is passed on as
 * it came, whatever it was. */
#define WRAP_FCNTL(name)                                                                           \
        EXPORT int name(int fd, int command, ...)                                                  \
        {                                                                                          \
                va_list ap;                                                                        \
                long arg;                                                                          \
                va_start(ap, command);                                                             \
                arg = va_arg(ap, long);                                                            \
                va_end(ap);                                                                        \
                if (touches(fd, command) && command_touch(fd, command) < 0)                        \
                        return -1;                                                                 \
                return fcntl_done(fd, command, arg, REAL(name)(fd, command, arg));                 \
        }
WRAP_FCNTL(fcntl)
WRAP_FCNTL(fcntl64)
WRAP_FCNTL(__fcntl)

static bool mode_says_close_on_exec(const char *mode)
{
        return mode && memchr(mode, 'e', strcspn(mode, ","));
}

static FILE *stream_opened(FILE *stream, bool close_on_exec)
{
        if (stream)
                opened(fileno(stream), close_on_exec);
        return stream;
}

#define WRAP_FOPEN(name)                                                                           \
        EXPORT FILE *name(const char *path, const char *mode)                                      \
        {                                                                                          \
                account_expect();                                                                  \
                return stream_opened(REAL(name)(path, mode), mode_says_close_on_exec(mode));       \
        }
WRAP_FOPEN(fopen)
WRAP_FOPEN(fopen64)

#define WRAP_FREOPEN(name)                                                                         \
        EXPORT FILE *name(const char *path, const char *mode, FILE *stream)                        \
        {                                                                                          \
                FILE *result;                                                                      \
                if (stream)                                                                        \
                        fd_table_closing(fileno(stream));                                          \
                account_expect();                                                                  \
                result = REAL(name)(path, mode, stream);                                           \
                return path ? stream_opened(result, mode_says_close_on_exec(mode)) : result;       \
        }
WRAP_FREOPEN(freopen)
WRAP_FREOPEN(freopen64)

EXPORT FILE *tmpfile(void)
{
        account_expect();
        return stream_opened(REAL(tmpfile)(), false);
}

EXPORT FILE *tmpfile64(void)
{
        account_expect();
        return stream_opened(REAL(tmpfile64)(), false);
}

EXPORT DIR *opendir(const char *path)
{
        DIR *dir;

        account_expect();
        dir = REAL(opendir)(path);
        if (dir)
                opened(dirfd(dir), true);
        return dir;
}

/* These move the offset of the directory.  One that is not to be replaced is touched by the next
 * readdir(); in the other case it is not this process's to move. */
static bool may_move(DIR *dir)
{
        const int fd = dir ? dirfd(dir) : -1;

        return !private_pending(fd) || touch(fd) == 0;
}

EXPORT void rewinddir(DIR *dir)
{
        if (may_move(dir))
                REAL(rewinddir)(dir);
}

EXPORT void seekdir(DIR *dir, long at)
{
        if (may_move(dir))
                REAL(seekdir)(dir, at);
}

/* In private mode a child must know what its parent had received, see private.h. */
static void received(struct msghdr *msg)
{
        const int saved = errno;

        for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
                const unsigned char *data = CMSG_DATA(cmsg);

                if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = CMSG_LEN(0); i + sizeof(int) <= cmsg->cmsg_len; i += sizeof(int)) {
                        int fd;

                        memcpy(&fd, data + i - CMSG_LEN(0), sizeof fd);
                        private_notice(fd);
                }
        }
        errno = saved;
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
        const ssize_t n = REAL(recvmsg)(fd, msg, flags);

        if (n >= 0 && private_on)
                received(msg);
        return n;
}

EXPORT int recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout)
{
        const int done = REAL(recvmmsg)(fd, msgs, n, flags, timeout);

        for (int i = 0; private_on && i < done; i++)
                received(&msgs[i].msg_hdr);
        return done;
}
