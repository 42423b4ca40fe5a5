/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a step is written down.  A step is one line of the transcript, "NAME<tab>TEXT", written with
 * one write() to an O_APPEND descriptor that children share, so lines never mix.
 */
#include "parity.h"

#include <grp.h>
#include <stdarg.h>
#include <sys/prctl.h>

void flush_step(struct run *r)
{
        char line[sizeof r->name + sizeof r->text + 4];
        int n;

        if (r->name[0] == '\0')
                return;
        n = snprintf(line, sizeof line, "%s\t%s\n", r->name, r->text);
        if (write(r->out, line, (size_t)n) != n)
                abort();
        r->name[0] = '\0';
        r->text[0] = '\0';
        r->len = 0;
}

/* Names and texts are one line: everything that is not printable is escaped. */
static size_t escape(char *to, size_t size, const char *from)
{
        size_t n = 0;

        for (; *from != '\0' && n + 5 < size; from++) {
                unsigned char c = (unsigned char)*from;

                if (c < 0x20 || c >= 0x7f)
                        n += (size_t)snprintf(to + n, size - n, "\\x%02x", c);
                else
                        to[n++] = (char)c;
        }
        to[n] = '\0';
        return n;
}

void step(struct run *r, const char *format, ...)
{
        char plain[sizeof r->name];
        va_list ap;

        flush_step(r);
        va_start(ap, format);
        vsnprintf(plain, sizeof plain, format, ap);
        va_end(ap);
        escape(r->name, sizeof r->name, plain);
}

void rec(struct run *r, const char *format, ...)
{
        char plain[8192];
        va_list ap;

        if (r->name[0] == '\0')
                abort(); /* no step: a child was run meanwhile */
        va_start(ap, format);
        vsnprintf(plain, sizeof plain, format, ap);
        va_end(ap);
        if (r->len > 0 && r->len + 1 < sizeof r->text)
                r->text[r->len++] = ' ';
        r->len += escape(r->text + r->len, sizeof r->text - r->len, plain);
}

void rec_result(struct run *r, long value)
{
        int err = errno;

        if (value == -1)
                rec(r, "= -1 %s", err == 0 ? "0" : strerrorname_np(err) ?: "unknown errno");
        else
                rec(r, "= %ld", value);
        errno = err;
}

void rec_fd(struct run *r, int fd)
{
        if (fd >= 0)
                rec(r, "= fd");
        else
                rec_result(r, -1);
}

void set_failed(struct run *r, const char *call, int line)
{
        int err = errno;

        step(r, "preparation in line %d: %s", line, call);
        rec(r, "failed: %s", strerrorname_np(err));
}

static uint64_t hash(const unsigned char *p, size_t n)
{
        uint64_t h = 1469598103934665603u;

        while (n-- > 0)
                h = (h ^ *p++) * 1099511628211u;
        return h;
}

void rec_data(struct run *r, const void *data, ssize_t n)
{
        char head[25] = "";
        size_t i;

        if (n < 0)
                return;
        for (i = 0; i < (size_t)n && i < sizeof head - 1; i++) {
                char c = ((const char *)data)[i];

                head[i] = c >= 0x20 && c < 0x7f ? c : '.';
        }
        rec(r, "data %zd %016" PRIx64 " '%s'", n, hash(data, (size_t)n), head);
}

void rec_path(struct run *r, const char *text)
{
        size_t n = strlen(r->top);
        const char *found = strstr(text, r->top);

        if (found == NULL)
                rec(r, "'%s'", text);
        else
                rec(r, "'%.*sTOP%s'", (int)(found - text), text, found + n);
}

static char type_letter(mode_t mode)
{
        switch (mode & S_IFMT) {
        case S_IFREG:
                return 'f';
        case S_IFDIR:
                return 'd';
        case S_IFLNK:
                return 'l';
        case S_IFIFO:
                return 'p';
        case S_IFSOCK:
                return 's';
        case S_IFCHR:
                return 'c';
        case S_IFBLK:
                return 'b';
        default:
                return '?';
        }
}

/* Not st_blocks: before the data is allocated it depends on the moment. */
void rec_stat(struct run *r, const struct stat *st)
{
        rec(r, "%c%04o nlink %lu uid %u gid %u size %lld blksize %ld rdev %lx",
            type_letter(st->st_mode), st->st_mode & 07777, (unsigned long)st->st_nlink, st->st_uid,
            st->st_gid, (long long)st->st_size, (long)st->st_blksize, (unsigned long)st->st_rdev);
}

void rec_blocks(struct run *r, int fd)
{
        struct statx x;

        if (fsync(fd) < 0 ||
            statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BLOCKS, &x) < 0)
                rec(r, "blocks: %s", strerrorname_np(errno));
        else
                rec(r, "blocks %llu", (unsigned long long)x.stx_blocks);
}

void rec_lstat(struct run *r, const char *path)
{
        struct stat st;

        if (lstat(path, &st) < 0)
                rec(r, "lstat: %s", strerrorname_np(errno));
        else
                rec_stat(r, &st);
}

void rec_fstat(struct run *r, int fd)
{
        struct stat st;

        if (fstat(fd, &st) < 0)
                rec(r, "fstat: %s", strerrorname_np(errno));
        else
                rec_stat(r, &st);
}

void rec_mode(struct run *r, const char *path)
{
        struct stat st;

        if (lstat(path, &st) < 0)
                rec(r, "lstat: %s", strerrorname_np(errno));
        else
                rec(r, "%c%04o", type_letter(st.st_mode), st.st_mode & 07777);
}

void rec_file(struct run *r, const char *path)
{
        static char buffer[4 << 20];
        size_t n = 0;
        ssize_t got;
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

        if (fd < 0) {
                rec(r, "open: %s", strerrorname_np(errno));
                return;
        }
        while (n < sizeof buffer && (got = read(fd, buffer + n, sizeof buffer - n)) != 0) {
                if (got < 0) {
                        rec(r, "read: %s", strerrorname_np(errno));
                        break;
                }
                n += (size_t)got;
        }
        close(fd);
        rec_data(r, buffer, (ssize_t)n);
}

static int by_name(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

void rec_listing(struct run *r, const char *path)
{
        static const char letters[] = {
                [DT_UNKNOWN] = '?', [DT_REG] = 'f',  [DT_DIR] = 'd', [DT_LNK] = 'l',
                [DT_FIFO] = 'p',    [DT_SOCK] = 's', [DT_CHR] = 'c', [DT_BLK] = 'b'};
        char **names = NULL;
        size_t n = 0, i;
        struct dirent *entry;
        DIR *dir = opendir(path);

        if (dir == NULL) {
                rec(r, "opendir: %s", strerrorname_np(errno));
                return;
        }
        while (errno = 0, (entry = readdir(dir)) != NULL) {
                names = realloc(names, (n + 1) * sizeof *names);
                if (names == NULL ||
                    asprintf(&names[n++], "%s/%c", entry->d_name,
                             entry->d_type < sizeof letters ? letters[entry->d_type] : '?') < 0)
                        abort();
        }
        if (errno != 0)
                rec(r, "readdir: %s", strerrorname_np(errno));
        closedir(dir);
        qsort(names, n, sizeof *names, by_name);
        rec(r, "%zu entries", n);
        if (n <= 300) {
                for (i = 0; i < n; i++)
                        rec(r, "%s", names[i]);
        } else {
                uint64_t h = 0;

                for (i = 0; i < n; i++)
                        h = h * 31 + hash((unsigned char *)names[i], strlen(names[i]));
                rec(r, "hash %016" PRIx64, h);
        }
        for (i = 0; i < n; i++)
                free(names[i]);
        free(names);
}

void rec_status(struct run *r, int status)
{
        if (WIFEXITED(status))
                rec(r, "exit %d", WEXITSTATUS(status));
        else if (WIFSIGNALED(status))
                rec(r, "killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
        else
                rec(r, "status %x", (unsigned)status);
}

void *bad_address(void)
{
        static void *volatile bad = (void *)1;

        return bad;
}

void pattern(void *buffer, size_t n, uint64_t offset)
{
        unsigned char *p = buffer;
        size_t i;

        for (i = 0; i < n; i++) {
                uint64_t x = (offset + i) / 7 * 2654435761u;

                p[i] = (unsigned char)('!' + ((x >> 13) + (offset + i)) % 90);
        }
}

void put(struct run *r, const char *path, const char *content)
{
        int fd = (int)SET(r, open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));

        if (fd < 0)
                return;
        SET(r, write(fd, content, strlen(content)));
        SET(r, close(fd));
}

void put_n(struct run *r, const char *path, size_t size)
{
        char *buffer = malloc(size + 1);
        int fd = (int)SET(r, open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));

        if (fd < 0 || buffer == NULL) {
                free(buffer);
                return;
        }
        pattern(buffer, size, 0);
        if (write(fd, buffer, size) != (ssize_t)size)
                set_failed(r, path, __LINE__);
        close(fd);
        free(buffer);
}

struct remembered remember(const char *path)
{
        struct remembered times = {0};
        struct stat st;

        if (lstat(path, &st) == 0)
                times = (struct remembered){st.st_atim, st.st_mtim, st.st_ctim};
        usleep(12000); /* kernels before 6.13 stamp by the tick */
        return times;
}

static bool differs(struct timespec a, struct timespec b)
{
        return a.tv_sec != b.tv_sec || a.tv_nsec != b.tv_nsec;
}

void rec_changes(struct run *r, const struct remembered *before, const char *path)
{
        struct stat st;

        if (lstat(path, &st) < 0) {
                rec(r, "lstat: %s", strerrorname_np(errno));
                return;
        }
        rec(r, "changed %c%c%c", differs(before->a, st.st_atim) ? 'a' : '-',
            differs(before->m, st.st_mtim) ? 'm' : '-', differs(before->c, st.st_ctim) ? 'c' : '-');
}

static pid_t spawn(struct run *r, void (*act)(struct run *r, void *data), void *data, bool other)
{
        pid_t pid;

        flush_step(r);
        pid = fork();
        if (pid < 0)
                abort();
        if (pid > 0)
                return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(60);
        if (other && r->root) {
                if (setgroups(0, NULL) < 0 || setresgid(OTHER_GID, OTHER_GID, OTHER_GID) < 0 ||
                    setresuid(OTHER_UID, OTHER_UID, OTHER_UID) < 0)
                        _exit(99);
                r->root = false;
        }
        act(r, data);
        flush_step(r);
        _exit(0);
}

static int finish(pid_t pid)
{
        int status;

        while (waitpid(pid, &status, 0) < 0) {
                if (errno != EINTR)
                        return -1;
        }
        return status;
}

int in_child(struct run *r, void (*act)(struct run *r, void *data), void *data)
{
        return finish(spawn(r, act, data, false));
}

int as_other(struct run *r, void (*act)(struct run *r, void *data), void *data)
{
        return finish(spawn(r, act, data, true));
}

pid_t beside(struct run *r, void (*act)(struct run *r, void *data), void *data)
{
        return spawn(r, act, data, false);
}
