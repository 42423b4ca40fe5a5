/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is parked goes through a real socket, so that it outlives the child that parked it. */
#include "dying_daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fusefs/worker/channel.h"
#include "fusefs/holder/link.h"
#include "fusefs/resume/node_resume.h"
#include "fusefs/ops/ops.h"
#include "fusefs/control/proc_files.h"

/* ---- the holder ---- */

static int holder[2]; /* the worker's end, the holder's end */
static struct {
        uint64_t key;
        int fd; /* -1: taken back, or given */
} parked[64];
static unsigned n_parked;

int __wrap_link_send_park(struct link *link, uint64_t key, int fd);
int __wrap_link_send_park(struct link *link, uint64_t key, int fd)
{
        const struct link_message message = {
                .head = {.version = LINK_VERSION, .type = LINK_PARK, .key = key}};

        return link_send(holder[0], &message, &fd, 1, 0);
}

void __wrap_link_unpark(struct link *link, uint64_t key);
void __wrap_link_unpark(struct link *link, uint64_t key)
{
        const struct link_message message = {
                .head = {.version = LINK_VERSION, .type = LINK_UNPARK, .key = key}};

        g_assert_cmpint(link_send(holder[0], &message, NULL, 0, 0), ==, 0);
}

/* Takes what is in the socket. */
static void holder_reads(void)
{
        struct link_message message;
        int fds[LINK_PARKED_MAX];
        unsigned n;

        while (link_receive(holder[1], &message, fds, &n, MSG_DONTWAIT) == 0) {
                for (unsigned i = 0; i < n_parked; i++)
                        if (parked[i].key == message.head.key && parked[i].fd >= 0) {
                                close(parked[i].fd);
                                parked[i].fd = -1;
                        }
                if (message.head.type == LINK_UNPARK)
                        continue;
                g_assert_cmpuint(n, ==, 1);
                g_assert_cmpuint(n_parked, <, G_N_ELEMENTS(parked));
                parked[n_parked].key = message.head.key;
                parked[n_parked++].fd = fds[0];
        }
}

unsigned count_parked(void)
{
        unsigned n = 0;

        holder_reads();
        for (unsigned i = 0; i < n_parked; i++)
                n += parked[i].fd >= 0;
        return n;
}

int __wrap_link_take_parked(struct link *link, uint64_t key);
int __wrap_link_take_parked(struct link *link, uint64_t key)
{
        holder_reads();
        for (unsigned i = 0; i < n_parked; i++)
                if (parked[i].key == key && parked[i].fd >= 0)
                        return fcntl(parked[i].fd, F_DUPFD_CLOEXEC, 0);
        return -ENOENT;
}

void __wrap_link_drop_parked(struct link *link);
void __wrap_link_drop_parked(struct link *link)
{
}

/* ---- the kernel ---- */

unsigned asked;        /* for nodes */
uint64_t kernel_knows; /* one node */
bool raising_now;

int __wrap_channel_inval_inode(struct channel *channel, fuse_ino_t ino, bool data);
int __wrap_channel_inval_inode(struct channel *channel, fuse_ino_t ino, bool data)
{
        asked++;
        return ino == kernel_knows ? 0 : -ENOENT;
}

bool raising(void *data, uint64_t id)
{
        return raising_now;
}

int anybody;

int __wrap_proc_files_anybody(dev_t dev, uint64_t ino, unsigned modes);
int __wrap_proc_files_anybody(dev_t dev, uint64_t ino, unsigned modes)
{
        asked++;
        return anybody;
}

static int *last_backing; /* in shared memory, as it is the kernel's */
bool die_in_backing_open;
unsigned closed[IDS_MAX];

int __wrap_channel_backing_open(struct channel *channel, int fd);
int __wrap_channel_backing_open(struct channel *channel, int fd)
{
        ++*last_backing;
        if (die_in_backing_open)
                kill(getpid(), SIGKILL);
        return *last_backing;
}

void __wrap_channel_backing_close(struct channel *channel, int id);
void __wrap_channel_backing_close(struct channel *channel, int id)
{
        g_assert_cmpint(id, <, IDS_MAX);
        closed[id]++;
}

/* ---- fixture ---- */

char *at(struct fixture *f, const char *name)
{
        return g_build_filename(f->source, name, NULL);
}

void make_file(struct fixture *f, const char *name)
{
        g_autofree char *path = at(f, name);

        g_assert_true(g_file_set_contents(path, name, -1, NULL));
}

void make_dir(struct fixture *f, const char *name)
{
        g_autofree char *path = at(f, name);

        g_assert_cmpint(mkdir(path, 0755), ==, 0);
}

void move(struct fixture *f, const char *from, const char *to)
{
        g_autofree char *a = at(f, from), *b = at(f, to);

        g_assert_cmpint(rename(a, b), ==, 0);
}

void remove_name(struct fixture *f, const char *name)
{
        g_autofree char *path = at(f, name);

        g_assert_cmpint(remove(path), ==, 0);
}

static void make_table(struct fixture *f)
{
        g_assert_cmpint(node_table_new(&f->mount, &f->table), ==, 0);
        f->mount.nodes = f->table;
        f->root = dir_linux_fs_of(node_table_file(f->table, FUSE_ROOT_ID));
        f->rootfd = node_fd_get(&f->root->file);
        g_assert_cmpint(f->rootfd, >=, 0);
}

void setup(struct fixture *f, gconstpointer data)
{
        f->source = g_dir_make_tmp("k42nodes.XXXXXX", NULL);
        f->state = g_dir_make_tmp("k42state.XXXXXX", NULL);
        g_assert_nonnull(f->source);
        g_assert_nonnull(f->state);
        f->state_fd = open(f->state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        f->source_fd = open(f->source, O_PATH | O_DIRECTORY | O_CLOEXEC);
        g_assert_cmpint(f->state_fd, >=, 0);
        g_assert_cmpint(f->source_fd, >=, 0);
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, holder), ==, 0);
        f->said = mmap(NULL, sizeof *f->said, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                       -1, 0);
        last_backing = &f->said->last_backing;
        f->mount = (struct k42_mount){
                .options = {.source = f->source, .mountpoint = f->source},
                .link = (struct link *)f, /* nobody looks into these two */
                .channel = (struct channel *)f,
                .passthrough = true,
                .source_fd = f->source_fd,
                .privileged = geteuid() == 0,
                .io_class = IO_CLASS_FAST,
        };
        memset(closed, 0, sizeof closed);
        asked = 0;
        kernel_knows = 0;
        raising_now = false;
}

void daemon_dies(struct fixture *f, void (*fn)(struct fixture *f))
{
        const pid_t pid = fork();
        int status;

        g_assert_cmpint(pid, >=, 0);
        if (pid == 0) {
                g_assert_cmpint(keep_create(f->state_fd, "keep", &f->mount.keep), ==, 0);
                make_table(f);
                fn(f);
                kill(getpid(), SIGKILL);
        }
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_assert_true(WIFSIGNALED(status));
        g_assert_cmpint(WTERMSIG(status), ==, SIGKILL);
}

void resume(struct fixture *f)
{
        uint32_t damaged;

        g_assert_cmpint(keep_adopt(f->state_fd, "keep", &f->mount.keep, &damaged), ==, 0);
        g_assert_cmpuint(damaged, ==, 0);
        make_table(f);
        g_assert_cmpint(node_table_resume(f->table), ==, 0);
}

uint64_t records(struct fixture *f)
{
        struct keep_stats stats;

        keep_get_stats(f->mount.keep, &stats);
        return stats.records;
}

void teardown(struct fixture *f, gconstpointer data)
{
        g_autofree char *command = g_strdup_printf("rm -rf -- '%s' '%s'", f->source, f->state);

        node_fd_put(&f->root->file);
        node_table_free(f->table);
        g_assert_cmpuint(records(f), ==, 0);
        g_assert_cmpuint(count_parked(), ==, 0);
        keep_close(f->mount.keep);
        close(f->state_fd);
        close(f->source_fd);
        close(holder[0]);
        close(holder[1]);
        n_parked = 0;
        munmap(f->said, sizeof *f->said);
        g_assert_cmpint(system(command), ==, 0);
        g_free(f->source);
        g_free(f->state);
}

struct server_file *look_in(struct fixture *f, struct server_file *dir, const char *name)
{
        struct fuse_entry_param entry;
        const int fd = node_fd_get(dir);

        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(ops_lookup(dir_linux_fs_of(dir), fd, name, &entry), ==, 0);
        node_fd_put(dir);
        return node_table_file(f->table, entry.ino);
}

struct server_file *look(struct fixture *f, const char *name)
{
        return look_in(f, &f->root->file, name);
}

struct server_file *node(struct fixture *f, unsigned n)
{
        return node_table_file(f->table, f->said->ids[n]);
}

void assert_content(struct server_file *file, const char *content)
{
        const int fd = server_file_open_again(file, O_RDONLY);
        char text[100] = "";

        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(read(fd, text, sizeof text - 1), >=, 0);
        g_assert_cmpstr(text, ==, content);
        close(fd);
}

void assert_path(struct server_file *file, const char *path)
{
        g_autofree char *is = server_file_describe(file);

        g_assert_cmpstr(is, ==, path);
}
