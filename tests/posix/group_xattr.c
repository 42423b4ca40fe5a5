/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extended attributes of every namespace, their sizes; POSIX ACLs, which are two of them, and what
 * they do.
 */
#include "parity.h"

#include <sys/xattr.h>

static const char *const each[] = {"file", "dir", "link", "dangling", "fifo", "absent"};

static void make_each(struct run *r)
{
        put(r, "file", "content");
        SET(r, mkdir("dir", 0755));
        SET(r, symlink("file", "link"));
        SET(r, symlink("nowhere", "dangling"));
        SET(r, mkfifo("fifo", 0644));
}

/* The names, sorted: the order is not promised. */
static void rec_list(struct run *r, const char *path)
{
        char list[4096], *names[64];
        size_t n = 0, i, k;
        ssize_t got = llistxattr(path, list, sizeof list);

        if (got < 0) {
                rec(r, "llistxattr: %s", strerrorname_np(errno));
                return;
        }
        for (i = 0; i < (size_t)got && n < N_ELEMENTS(names); i += strlen(list + i) + 1)
                names[n++] = list + i;
        for (i = 0; i < n; i++) {
                for (k = i + 1; k < n; k++) {
                        if (strcmp(names[k], names[i]) < 0) {
                                char *swap = names[i];

                                names[i] = names[k];
                                names[k] = swap;
                        }
                }
                rec(r, "%s", names[i]);
        }
        rec(r, "(%zd bytes)", got);
}

static void namespaces(struct run *r, void *data)
{
        static const char *const names[] = {"user.one",
                                            "trusted.one",
                                            "security.one",
                                            "system.one",
                                            "other.one",
                                            "user.",
                                            "user",
                                            "",
                                            "security.capability",
                                            "security.selinux",
                                            "trusted.overlay.opaque"};
        const char *who = r->root ? "root" : "user";
        char buffer[256];
        size_t i, k;

        for (i = 0; i < N_ELEMENTS(each); i++) {
                for (k = 0; k < N_ELEMENTS(names); k++) {
                        SAY(r, lsetxattr(each[i], names[k], "value", 5, 0), "set '%s' of %s, %s",
                            names[k], each[i], who);
                        rec_data(r, buffer,
                                 SAY(r, lgetxattr(each[i], names[k], buffer, sizeof buffer),
                                     "get '%s' of %s, %s", names[k], each[i], who));
                        rec_list(r, each[i]);
                        SAY(r, lremovexattr(each[i], names[k]), "remove '%s' of %s, %s", names[k],
                            each[i], who);
                        rec_list(r, each[i]);
                }
                SAY(r, setxattr(each[i], "user.followed", "x", 1, 0), "set followed of %s, %s",
                    each[i], who);
                rec_list(r, each[i]);
                rec_list(r, "file");
                removexattr(each[i], "user.followed");
        }
}

void group_xattr(struct run *r)
{
        char buffer[64], name[300];
        int fd, path;

        make_each(r);
        namespaces(r, NULL);
        SAY(r, setxattr("file", "user.a", "1", 1, XATTR_REPLACE), "replace of the absent");
        SAY(r, setxattr("file", "user.a", "1", 1, XATTR_CREATE), "create");
        SAY(r, setxattr("file", "user.a", "2", 1, XATTR_CREATE), "create of the present");
        SAY(r, setxattr("file", "user.a", "3", 1, XATTR_REPLACE), "replace");
        rec_data(r, buffer, SAY(r, getxattr("file", "user.a", buffer, sizeof buffer), "replaced"));
        SAY(r, setxattr("file", "user.a", "4", 1, XATTR_CREATE | XATTR_REPLACE), "both flags");
        SAY(r, setxattr("file", "user.a", "4", 1, 8), "unknown flag");
        SAY(r, setxattr("file", "user.a", "", 0, 0), "empty value");
        SAY(r, getxattr("file", "user.a", buffer, sizeof buffer), "of the empty value");
        SAY(r, setxattr("file", "user.a", "longer value", 12, 0), "longer value");
        SAY(r, getxattr("file", "user.a", buffer, 5), "into 5 bytes");
        SAY(r, getxattr("file", "user.a", NULL, 0), "into none");
        SAY(r, listxattr("file", buffer, 3), "list into 3 bytes");
        SAY(r, listxattr("file", NULL, 0), "list into none");
        SAY(r, removexattr("file", "user.none"), "remove of the absent");
        SAY(r, getxattr("file", "user.none", buffer, sizeof buffer), "get of the absent");
        fd = open("file", O_RDWR | O_CLOEXEC);
        path = open("file", O_PATH | O_CLOEXEC);
        SAY(r, fsetxattr(fd, "user.fd", "f", 1, 0), "fsetxattr");
        rec_list(r, "file");
        SAY(r, fgetxattr(fd, "user.fd", buffer, sizeof buffer), "fgetxattr");
        SAY(r, flistxattr(fd, NULL, 0), "flistxattr");
        SAY(r, fremovexattr(fd, "user.fd"), "fremovexattr");
        SAY(r, fgetxattr(path, "user.fd", buffer, sizeof buffer), "fgetxattr of O_PATH");
        SET(r, chmod("file", 0444));
        SAY(r, setxattr("file", "user.ro", "x", 1, 0), "set of a read-only file");
        SET(r, unlink("file"));
        SAY(r, fsetxattr(fd, "user.gone", "g", 1, 0), "fsetxattr of an unlinked file");
        SAY(r, fgetxattr(fd, "user.gone", buffer, sizeof buffer), "fgetxattr of an unlinked file");
        memset(name, 'n', sizeof name);
        memcpy(name, "user.", 5);
        put(r, "file", "content");
        name[255] = '\0';
        SAY(r, setxattr("file", name, "x", 1, 0), "a name of 255");
        rec_list(r, "file");
        name[255] = 'n';
        name[256] = '\0';
        SAY(r, setxattr("file", name, "x", 1, 0), "a name of 256");
        SAY(r, getxattr("file", name, buffer, sizeof buffer), "get a name of 256");
        if (r->root) {
                SET(r, chmod(".", 0777));
                SET(r, chown("dir", OTHER_UID, OTHER_GID));
                STATUS(r, as_other(r, namespaces, NULL), "as another user");
        }
}

void group_xattr_sizes(struct run *r)
{
        static const size_t sizes[] = {0,    1,     100,   3000,  4000,  4096,
                                       5000, 65535, 65536, 65537, 100000};
        static char value[100001], back[100001];
        size_t i;
        char name[32];

        for (i = 0; i < N_ELEMENTS(sizes); i++) {
                put(r, "file", "content");
                pattern(value, sizes[i], i);
                SAY(r, setxattr("file", "user.v", value, sizes[i], 0), "set %zu", sizes[i]);
                rec_data(
                        r, back,
                        SAY(r, getxattr("file", "user.v", back, sizeof back), "get %zu", sizes[i]));
                SAY(r, getxattr("file", "user.v", NULL, 0), "size of %zu", sizes[i]);
                SAY(r, getxattr("file", "user.v", back, sizes[i] ? sizes[i] - 1 : 0),
                    "get %zu into one less", sizes[i]);
                rec_lstat(r, "file");
                unlink("file");
        }
        put(r, "file", "content");
        step(r, "as many as there is room for");
        for (i = 0; i < 200; i++) {
                snprintf(name, sizeof name, "user.many-%03zu", i);
                if (setxattr("file", name, value, 50, 0) < 0)
                        break;
        }
        rec(r, "%zu, then %s", i, strerrorname_np(errno));
        rec(r, "list %zd", listxattr("file", back, sizeof back));
        SAY(r, listxattr("file", back, 10), "their list into 10 bytes");
        SAY(r, removexattr("file", "user.many-000"), "remove one of them");
        SAY(r, listxattr("file", NULL, 0), "their list after it");
}

/* An ACL as the kernel wants it. */
enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

struct acl {
        uint32_t version;
        struct {
                uint16_t tag, perm;
                uint32_t id;
        } entry[8];
};

static size_t acl_make(struct acl *acl, const char *text)
{
        size_t n = 0;

        acl->version = 2;
        for (; *text != '\0'; text++) {
                unsigned perm;
                char kind = *text++;

                perm = (unsigned)(*text - '0');
                acl->entry[n].id = (uint32_t)-1;
                switch (kind) {
                case 'u':
                        acl->entry[n].tag = USER_OBJ;
                        break;
                case 'U':
                        acl->entry[n].tag = USER;
                        acl->entry[n].id = OTHER_UID;
                        break;
                case 'V':
                        acl->entry[n].tag = USER;
                        acl->entry[n].id = THIRD_ID;
                        break;
                case 'g':
                        acl->entry[n].tag = GROUP_OBJ;
                        break;
                case 'G':
                        acl->entry[n].tag = GROUP;
                        acl->entry[n].id = THIRD_ID;
                        break;
                case 'm':
                        acl->entry[n].tag = MASK;
                        break;
                default:
                        acl->entry[n].tag = OTHER;
                        break;
                }
                acl->entry[n++].perm = (uint16_t)perm;
        }
        return 4 + n * 8;
}

#define ACCESS_ACL  "system.posix_acl_access"
#define DEFAULT_ACL "system.posix_acl_default"

static void rec_acl(struct run *r, const char *path, const char *which)
{
        struct acl acl;
        ssize_t n = getxattr(path, which, &acl, sizeof acl);
        size_t i;

        if (n < 0) {
                rec(r, "%s", strerrorname_np(errno));
                return;
        }
        for (i = 0; 4 + (i + 1) * 8 <= (size_t)n; i++)
                rec(r, "%u:%d:%o", acl.entry[i].tag, (int)acl.entry[i].id, acl.entry[i].perm);
}

static void try_access(struct run *r, void *data)
{
        const char *acl = data;
        int fd;

        fd = FD(r, open("file", O_RDONLY | O_CLOEXEC), "the other reads under %s", acl);
        close(fd);
        fd = FD(r, open("file", O_WRONLY | O_CLOEXEC), "the other writes under %s", acl);
        close(fd);
        SAY(r, access("file", R_OK | W_OK), "the other's access under %s", acl);
        SAY(r, setxattr("file", ACCESS_ACL, "x", 1, 0), "the other sets under %s", acl);
        SAY(r, removexattr("file", ACCESS_ACL), "the other removes under %s", acl);
        SAY(r, getxattr("file", ACCESS_ACL, NULL, 0), "the other gets under %s", acl);
}

void group_acl(struct run *r)
{
        static const char *const texts[] = {"u6g4o4",     "u6U6g4m6o0",   "u6U6g4m4o0",
                                            "u6U0g6m7o7", "u7V7g0G7m7o0", "u6g4",
                                            "u6U6g4o4",   "g4u6o4",       "u6u6g4o4",
                                            "u6g4m2o4",   "u9g4o4",       "u6U6V6g4G6m7o1"};
        struct acl acl;
        size_t i, n;
        int fd;

        put(r, "file", "content");
        SET(r, mkdir("dir", 0755));
        SET(r, symlink("file", "link"));
        for (i = 0; i < N_ELEMENTS(texts); i++) {
                n = acl_make(&acl, texts[i]);
                SET(r, chmod("file", 0644));
                removexattr("file", ACCESS_ACL);
                SAY(r, setxattr("file", ACCESS_ACL, &acl, n, 0), "set %s", texts[i]);
                rec_mode(r, "file");
                rec_acl(r, "file", ACCESS_ACL);
                rec_list(r, "file");
                SAY(r, chmod("file", 0651), "chmod under %s", texts[i]);
                rec_mode(r, "file");
                rec_acl(r, "file", ACCESS_ACL);
                SET(r, setxattr("file", ACCESS_ACL, &acl, acl_make(&acl, "u6g4o4"), 0));
                n = acl_make(&acl, texts[i]);
                if (setxattr("file", ACCESS_ACL, &acl, n, 0) == 0 && r->root)
                        as_other(r, try_access, (void *)texts[i]);
                SAY(r, setxattr("dir", ACCESS_ACL, &acl, n, 0), "set %s of a directory", texts[i]);
                rec_mode(r, "dir");
                rec_acl(r, "dir", ACCESS_ACL);
        }
        SAY(r, removexattr("file", ACCESS_ACL), "remove");
        rec_mode(r, "file");
        SAY(r, removexattr("file", ACCESS_ACL), "remove again");
        n = acl_make(&acl, "u6U6g4m6o0");
        SAY(r, setxattr("file", DEFAULT_ACL, &acl, n, 0), "a default of a file");
        SAY(r, lsetxattr("link", ACCESS_ACL, &acl, n, 0), "of a symlink");
        SAY(r, setxattr("link", ACCESS_ACL, &acl, n, 0), "by a symlink");
        rec_mode(r, "file");
        SAY(r, setxattr("file", ACCESS_ACL, &acl, n - 1, 0), "one byte short");
        SAY(r, setxattr("file", ACCESS_ACL, &acl, 4, 0), "no entries");
        SAY(r, setxattr("file", ACCESS_ACL, "", 0, 0), "empty");
        rec_acl(r, "file", ACCESS_ACL);
        acl.version = 3;
        SAY(r, setxattr("file", ACCESS_ACL, &acl, n, 0), "unknown version");
        n = acl_make(&acl, "u7U7g5m7o5");
        SET(r, chmod("file", 06755));
        SAY(r, setxattr("file", ACCESS_ACL, &acl, n, 0), "of a file with 06755");
        rec_mode(r, "file");
        fd = open("file", O_RDWR | O_CLOEXEC);
        SAY(r, fsetxattr(fd, ACCESS_ACL, &acl, n, XATTR_CREATE), "fsetxattr CREATE of the present");
        SAY(r, fsetxattr(fd, ACCESS_ACL, &acl, n, XATTR_REPLACE), "fsetxattr REPLACE");
        SAY(r, fgetxattr(fd, ACCESS_ACL, &acl, 5), "into 5 bytes");
}

static void make_below(struct run *r, void *data)
{
        const char *text = data;
        char name[40];
        int fd;

        snprintf(name, sizeof name, "dir/f-%s", r->root ? "root" : "user");
        fd = FD(r, open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666), "create below %s", text);
        rec_mode(r, name);
        rec_acl(r, name, ACCESS_ACL);
        close(fd);
        unlink(name);
        fd = FD(r, open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600), "create 0600 below %s", text);
        rec_mode(r, name);
        rec_acl(r, name, ACCESS_ACL);
        close(fd);
        unlink(name);
        SAY(r, mkdir(name, 0777), "mkdir below %s", text);
        rec_mode(r, name);
        rec_acl(r, name, ACCESS_ACL);
        rec_acl(r, name, DEFAULT_ACL);
        rmdir(name);
        SAY(r, mkfifo(name, 0666), "mkfifo below %s", text);
        rec_mode(r, name);
        rec_acl(r, name, ACCESS_ACL);
        unlink(name);
        SAY(r, symlink("x", name), "symlink below %s", text);
        rec_mode(r, name);
        unlink(name);
        fd = FD(r, open("dir", O_TMPFILE | O_RDWR | O_CLOEXEC, 0666), "O_TMPFILE below %s", text);
        if (fd >= 0)
                rec_fstat(r, fd);
        close(fd);
}

void group_acl_default(struct run *r)
{
        static const char *const texts[] = {"u6g4o4",   "u7U7g5m7o0", "u7U6g0m2o0",
                                            "u7g7m7o7", "u0g0o0",     "u7V7g5G5m7o5"};
        static const mode_t masks[] = {0, 022, 077};
        struct acl acl;
        size_t i, k, n;

        SET(r, mkdir("dir", 0777));
        SET(r, chmod("dir", 0777));
        for (i = 0; i < N_ELEMENTS(texts); i++) {
                n = acl_make(&acl, texts[i]);
                SAY(r, setxattr("dir", DEFAULT_ACL, &acl, n, 0), "set %s", texts[i]);
                rec_mode(r, "dir");
                rec_acl(r, "dir", DEFAULT_ACL);
                rec_list(r, "dir");
                for (k = 0; k < N_ELEMENTS(masks); k++) {
                        umask(masks[k]);
                        step(r, "umask %03o", masks[k]);
                        make_below(r, (void *)texts[i]);
                        if (r->root)
                                as_other(r, make_below, (void *)texts[i]);
                }
                SAY(r, chmod("dir", 0770), "chmod of %s", texts[i]);
                rec_acl(r, "dir", DEFAULT_ACL);
                SET(r, chmod("dir", 0777));
        }
        SAY(r, removexattr("dir", DEFAULT_ACL), "remove");
        umask(022);
        make_below(r, (void *)"nothing");
}
