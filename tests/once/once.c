/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * once MOUNTPOINT SOURCE STATE POINTS MODE: each operation is made exactly once, wherever the
 * daemon dies.
 *
 * POINTS is a file with the names of all failpoints, one a line.  The operation is made in a new
 * directory while a failpoint is armed (STATE is the daemon's state directory); then what the
 * program has seen, what the mount shows and what is in the backing directory SOURCE must be the
 * same as when the operation was made in peace.
 *
 *   MODE fast   each failpoint is died in at least once: with the first operation that comes by,
 * and if none does, after another death, while the next daemon resumes MODE all    every operation
 * with every failpoint, and a second death while the next daemon resumes MODE OPERATION SPEC   one,
 * and what it says
 *
 * Fails if a failpoint was never died in.
 */
#include "tests/once/once.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#define POINTS_MAX 512

/* A caller who is killed before he is asked for again; the daemon dies twice more meanwhile. */
#define KILLED "mkdir-called,resent,replay-init,replay-init"

static const char *mountpoint, *source;
const char *state_dir;
static char *points[POINTS_MAX];
static bool died_in[POINTS_MAX];
static unsigned n_points, n_places, n_deaths, n_failed;
static char *reference[128]; /* by operation */
static bool verbose;         /* K42_VERBOSE: says every death */

/* ---- the daemon's control socket ---- */

/* Asks for what is armed, after arming `spec` if that is not NULL.  A connection that a dying
 * daemon had accepted ends without an answer: once more. */
static void armed_now(const char *spec, char *ret_armed, size_t size)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        char request[512], answer[1024], *at = NULL;

        snprintf(address.sun_path, sizeof address.sun_path, "%s/control", state_dir);
        if (spec)
                snprintf(request, sizeof request,
                         "{\"verb\":\"failpoint\",\"args\":{\"points\":\"%s\"}}\n", spec);
        else
                snprintf(request, sizeof request, "{\"verb\":\"failpoint\",\"args\":{}}\n");
        for (unsigned attempt = 0; !at && attempt < 100; attempt++) {
                int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
                size_t n = 0;
                ssize_t r;

                if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                    send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request))
                        while (n < sizeof answer - 1 &&
                               (r = read(fd, answer + n, sizeof answer - 1 - n)) > 0)
                                n += (size_t)r;
                close(fd);
                answer[n] = '\0';
                at = strstr(answer, "\"armed\":\"");
                if (!at)
                        usleep(10000);
        }
        if (!at) {
                printf("no answer from %s\n", address.sun_path);
                exit(1);
        }
        at += strlen("\"armed\":\"");
        snprintf(ret_armed, size, "%.*s", (int)strcspn(at, "\""), at);
}

/* ---- what there is ---- */

static int by_name(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static void show_xattrs(FILE *to, const char *path)
{
        char list[1024], value[256];
        ssize_t n = llistxattr(path, list, sizeof list);

        for (ssize_t i = 0; i < n; i += (ssize_t)strlen(list + i) + 1) {
                ssize_t size = lgetxattr(path, list + i, value, sizeof value);

                fprintf(to, " %s=%.*s", list + i, size < 0 ? 0 : (int)size, value);
        }
}

static void show_contents(FILE *to, const char *path)
{
        char text[256];
        int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);

        fprintf(to, " \"%.*s\"", n < 0 ? 0 : (int)n, text);
        if (fd >= 0)
                close(fd);
}

static void show(FILE *to, const char *path, const char *name);

static void show_dir(FILE *to, const char *path)
{
        char *names[256];
        struct dirent *entry;
        unsigned n = 0;
        DIR *dir = opendir(path);

        while (dir && n < 256 && (entry = readdir(dir)))
                if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                        names[n++] = strdup(entry->d_name);
        if (dir)
                closedir(dir);
        qsort(names, n, sizeof *names, by_name);
        for (unsigned i = 0; i < n; i++) {
                char below[1024];

                snprintf(below, sizeof below, "%s/%s", path, names[i]);
                show(to, below, names[i]);
                free(names[i]);
        }
}

/* A tree as text, without what is different each time. */
static void show(FILE *to, const char *path, const char *name)
{
        struct stat st;
        char target[256] = "";

        if (lstat(path, &st) < 0) {
                fprintf(to, "%s: %s\n", name, strerrorname_np(errno));
                return;
        }
        fprintf(to, "%s: %o %u:%u %lu", name, st.st_mode, st.st_uid, st.st_gid,
                (unsigned long)st.st_nlink);
        if (!S_ISDIR(st.st_mode))
                fprintf(to, " %ld", (long)st.st_size);
        if (S_ISLNK(st.st_mode) && readlink(path, target, sizeof target - 1) >= 0)
                fprintf(to, " -> %s", target);
        if (st.st_mtime < 1500000000) /* one that was set */
                fprintf(to, " at %ld", (long)st.st_mtime);
        show_xattrs(to, path);
        if (S_ISREG(st.st_mode))
                show_contents(to, path);
        fputc('\n', to);
        if (S_ISDIR(st.st_mode))
                show_dir(to, path);
}

static char *tree(const char *top, const char *dir)
{
        char path[512], *text = NULL;
        size_t size;
        FILE *to = open_memstream(&text, &size);

        snprintf(path, sizeof path, "%s/%s", top, dir);
        show(to, path, ".");
        fclose(to);
        return text;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        return remove(path);
}

static void remove_tree(const char *path)
{
        if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
                printf("%s: cannot be removed: %s\n", path, strerrorname_np(errno));
}

/* ---- one operation ---- */

/* What it was like to make the operation while `spec` was armed (NULL: nothing); how much of it is
 * left. */
static char *outcome(const struct operation *op, const char *spec, char *ret_left, size_t size)
{
        struct place at = {.fd = -1, .other = -1};
        char name[32], *said = NULL, *mounted, *backing, *all = NULL;
        size_t length;

        snprintf(name, sizeof name, "place-%u", n_places++);
        snprintf(at.path, sizeof at.path, "%s/%s", mountpoint, name);
        at.say = open_memstream(&said, &length);
        if (mkdir(at.path, 0755) < 0)
                fprintf(at.say, "mkdir of the place: %s\n", strerrorname_np(errno));
        if (op->prepare)
                op->prepare(&at);
        ret_left[0] = '\0';
        if (spec)
                armed_now(spec, ret_left, size);
        op->run(&at);
        if (spec)
                armed_now(NULL, ret_left, size);
        if (ret_left[0] != '\0') {
                char nothing[256];

                armed_now("", nothing, sizeof nothing);
        }
        fclose(at.say);
        mounted = tree(mountpoint, name);
        backing = tree(source, name);
        if (asprintf(&all, "%s--- tree\n%s%s", said, mounted,
                     strcmp(mounted, backing) == 0 ? "" : "--- but the backing directory is\n") < 0)
                exit(1);
        if (strcmp(mounted, backing) != 0) {
                char *more = NULL;

                if (asprintf(&more, "%s%s", all, backing) < 0)
                        exit(1);
                free(all);
                all = more;
        }
        free(said);
        free(mounted);
        free(backing);
        remove_tree(at.path);
        return all;
}

/* How many points of `spec` were died in: those that are not left. */
static unsigned count_points(const char *spec)
{
        unsigned n = *spec != '\0';

        for (; *spec; spec++)
                n += *spec == ',';
        return n;
}

static void note_deaths(const char *spec, unsigned deaths)
{
        while (deaths-- > 0) {
                const size_t length = strcspn(spec, ",:");

                for (unsigned i = 0; i < n_points; i++)
                        if (strlen(points[i]) == length && memcmp(points[i], spec, length) == 0)
                                died_in[i] = true;
                spec += strcspn(spec, ",");
                spec += *spec == ',';
                n_deaths++;
        }
}

/* True if the daemon died in all points of `spec`. */
static bool try(unsigned i, const char *spec)
{
        const struct operation *op = &operations[i];
        char left[256], *seen;
        unsigned deaths;

        if (!reference[i])
                reference[i] = outcome(op, NULL, left, sizeof left);
        seen = outcome(op, spec, left, sizeof left);
        deaths = count_points(spec) - count_points(left);
        note_deaths(spec, deaths);
        if (verbose && deaths > 0)
                printf("%s: %s: %u deaths\n", op->name, spec, deaths);
        if (strcmp(seen, reference[i]) != 0) {
                n_failed++;
                printf("%s, %s (%u deaths):\n%s=== and not\n%s===\n", op->name, spec, deaths, seen,
                       reference[i]);
        }
        free(seen);
        return left[0] == '\0';
}

/* ---- which ---- */

static bool read_points(const char *path)
{
        FILE *file = fopen(path, "re");
        char line[256];

        while (file && n_points < POINTS_MAX && fgets(line, sizeof line, file)) {
                line[strcspn(line, "\n")] = '\0';
                points[n_points++] = strdup(line);
        }
        if (file)
                fclose(file);
        return n_points > 0;
}

static unsigned find_operation(const char *name)
{
        for (unsigned i = 0; i < n_operations; i++)
                if (strcmp(operations[i].name, name) == 0)
                        return i;
        printf("no operation %s\n", name);
        exit(2);
}

/* Points that only a daemon that takes over comes to, and only if the one before has left something
 * of their kind: the operation, and where that one dies, `from`-th to `to`-th visit.  A point may
 * stand here several times. */
static const struct way {
        const char *point, *operation, *first;
        unsigned from, to;
} ways[] = {
        {"again", "mkdir", "reply", 1, 2},
        {"doubted", "readdir", "replied", 2, 5},
        {"found-orphan", "mkdir", "reply", 1, 2},
        {"init-replayed", "rename", "reply", 1, 2},
        {"make-again", "create-readonly", "create-done", 1, 1},
        {"open-made", "create-readonly", "create-done", 1, 1},
        {"orphans-resolved", "unlink-open", "reply", 1, 2},
        {"replay-init", "open", "reply", 1, 2},
        {"reply-sent-again", "create", "replying", 1, 2},
        {"resend", "symlink", "reply", 1, 2},
        {"resent", "append", "reply", 1, 2},
        {"resolve", "killed", KILLED, 1, 1},
        {"resolve", "readdir", "replied", 2, 5},
        {"resolve", "forget", "serve", 2, 9},
        {"resolve-orphans", "link", "reply", 1, 2},
        {"resume-forget", "forget", "serve", 2, 9},
        {"serve-gone", "killed", KILLED, 1, 1},
        {"unraise", "killed", KILLED, 1, 1},
        {"undo-description", "create", "described", 1, 1},
        {"undo-raised", "mkdir", "reply", 1, 4},
};
#define N_WAYS (sizeof ways / sizeof ways[0])

/* True if the daemon died in `point` in this way. */
static bool try_way(const struct way *way, const char *point)
{
        const unsigned i = find_operation(way->operation);

        for (unsigned n = way->from; n <= way->to; n++) {
                char spec[256];

                if (n == 1)
                        snprintf(spec, sizeof spec, "%s,%s", way->first, point);
                else
                        snprintf(spec, sizeof spec, "%s:%u,%s", way->first, n, point);
                if (try(i, spec))
                        return true;
        }
        return false;
}

static bool only_in_ways(const char *point)
{
        for (unsigned w = 0; w < N_WAYS; w++)
                if (strcmp(ways[w].point, point) == 0)
                        return true;
        return false;
}

/* 0, 1 or 2: how soon to try whether an operation comes by a failpoint. */
static unsigned likely_to_pass(unsigned operation, unsigned point)
{
        const char *name = operations[operation].name;

        if (strncmp(name, points[point], 4) == 0)
                return 0;
        return strcmp(name, "create") == 0 || strcmp(name, "touch") == 0 ||
                               strcmp(name, "chmod") == 0 || strcmp(name, "forget") == 0
                       ? 1
                       : 2;
}

static void run_fast(void)
{
        for (unsigned p = 0; p < n_points; p++)
                for (unsigned round = 0; round < 3 && !only_in_ways(points[p]); round++)
                        for (unsigned i = 0; i < n_operations && !died_in[p]; i++)
                                if (likely_to_pass((p * 7 + i) % n_operations, p) == round)
                                        try((p * 7 + i) % n_operations, points[p]);
        for (unsigned p = 0; p < n_points; p++)
                for (unsigned w = 0; w < N_WAYS && !died_in[p]; w++)
                        if (strcmp(ways[w].point, points[p]) == 0)
                                try_way(&ways[w], points[p]);
}

static void run_all(void)
{
        for (unsigned i = 0; i < n_operations; i++)
                for (unsigned p = 0; p < n_points; p++) {
                        char spec[256];

                        if (!try(i, points[p]))
                                continue;
                        for (unsigned n = 2; n <= 4; n++) {
                                snprintf(spec, sizeof spec, "%s:%u", points[p], n);
                                if (!try(i, spec))
                                        break;
                        }
                        snprintf(spec, sizeof spec, "%s,%s", points[p], points[p]);
                        try(i, spec);
                        snprintf(spec, sizeof spec, "%s,again,resolve-orphans", points[p]);
                        try(i, spec);
                }
        for (unsigned w = 0; w < N_WAYS; w++)
                for (unsigned p = 0; p < n_points; p++)
                        if (only_in_ways(points[p]))
                                try_way(&ways[w], points[p]);
}

int main(int argc, char **argv)
{
        setvbuf(stdout, NULL, _IOLBF, 0);
        if (argc < 6 || !read_points(argv[4])) {
                fprintf(stderr,
                        "usage: once MOUNTPOINT SOURCE STATE POINTS fast|all|OPERATION SPEC\n");
                return 2;
        }
        mountpoint = argv[1];
        source = argv[2];
        state_dir = argv[3];
        umask(022);
        verbose = getenv("K42_VERBOSE");
        if (strcmp(argv[5], "fast") == 0) {
                run_fast();
        } else if (strcmp(argv[5], "all") == 0) {
                run_all();
        } else if (argc > 6) {
                const unsigned i = find_operation(argv[5]);

                printf("%s\n", try(i, argv[6]) ? "died" : "did not die");
                printf("%s", reference[i]);
                return n_failed > 0;
        }
        for (unsigned p = 0; p < n_points; p++)
                if (!died_in[p]) {
                        printf("never died in: %s\n", points[p]);
                        n_failed++;
                }
        printf("%u operations, %u failpoints, %u deaths, %u failed\n", n_operations, n_points,
               n_deaths, n_failed);
        return n_failed > 0;
}
