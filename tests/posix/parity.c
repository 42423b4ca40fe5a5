/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parity DIR_A DIR_B [--user UID:GID] [--only GROUP]... [--known FILE|none] [--tag TAG]... [--list]
 *
 * Runs every group once in a fresh directory of DIR_A (the backing directory) and once in one of
 * DIR_B (the mount), and prints each step that came out differently.  Exit status 0 when nothing
 * differs but what the list of known differences says, 1 when something does, 2 for wrong use.
 *
 * The list: a line `GROUP/STEP<tab>TAGS<tab>REASON`.  GROUP/STEP is an fnmatch(3) pattern.  TAGS is
 * `*`, or words joined by `,`.  A word is a tag of the run, and the entry holds for runs that have
 * them all (and none that has a `!` before it): --tag gives them (the tests tell the I/O class and who runs the daemon), and `root` or
 * `user` is added after who we are.  Or it says on which machines the entry must hold: the type of
 * DIR_A's file system (`ext4`), `linux>=6.14`; `sometimes`: nowhere.  An entry that holds for a run, on a machine where
 * it must, and that matches nothing that differs, is reported as an error.
 *
 * Ownership: main makes the transcripts (memfd files) and reads them after the group's child has
 * ended.
 */
#include "parity.h"

#include <fnmatch.h>
#include <ftw.h>
#include <glib.h>
#include <grp.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/utsname.h>

/* No group takes longer than some seconds; this one hangs. */
#define GROUP_SECONDS 120

#define X(name) {#name, group_##name},
static const struct parity_group groups[] = {PARITY_GROUPS(X)};
#undef X

struct known {
        char *pattern, *reason;
        bool holds; /* for this run's tags */
        bool must;  /* on this machine */
        unsigned seen, steps;
};

struct settings {
        const char *dirs[2];
        bool change_user;
        uid_t uid;
        gid_t gid;
        GPtrArray *only, *tags;
        GArray *known;
        char *self;
        unsigned steps, differences, known_seen;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        return remove(path);
}

static int open_up(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        if (type == FTW_D || type == FTW_DNR)
                chmod(path, 0700);
        return 0;
}

static void remove_tree(const char *path)
{
        nftw(path, open_up, 30, FTW_PHYS | FTW_MOUNT);
        nftw(path, remove_one, 30, FTW_PHYS | FTW_MOUNT | FTW_DEPTH);
}

static void run_in_child(const struct settings *set, const struct parity_group *group,
                         const char *top, int out)
{
        static struct run r;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGPIPE, SIG_IGN);
        alarm(GROUP_SECONDS);
        umask(022);
        if (set->change_user &&
            (setgroups(0, NULL) < 0 || setresgid(set->gid, set->gid, set->gid) < 0 ||
             setresuid(set->uid, set->uid, set->uid) < 0))
                _exit(98);
        if (chdir(top) < 0)
                _exit(97);
        r.top = top;
        r.self = set->self;
        r.out = out;
        r.root = geteuid() == 0;
        group->run(&r);
        flush_step(&r);
        _exit(0);
}

/* Waits for a group's child; one that does not even die (a hanging mount) is left behind. */
static int wait_for(pid_t pid)
{
        int status, i;

        for (i = 0; i < (GROUP_SECONDS + 10) * 200; i++) {
                if (waitpid(pid, &status, WNOHANG) == pid)
                        return status;
                usleep(5000);
        }
        kill(pid, SIGKILL);
        sleep(1);
        return waitpid(pid, &status, WNOHANG) == pid ? status : 0xffff;
}

/* Runs a group in a new directory below `dir`, and returns the transcript's lines. */
static char **transcript(const struct settings *set, const struct parity_group *group,
                         const char *dir, char letter)
{
        /* one below, so that ".." is ours, too */
        g_autofree char *outer = g_strdup_printf("%s/parity-%c.XXXXXX", dir, letter);
        g_autofree char *top = NULL;
        g_autofree char *text = NULL;
        struct stat st;
        ssize_t got = 0;
        int out, status;
        pid_t pid;

        if (mkdtemp(outer) != NULL)
                top = g_strconcat(outer, "/top", NULL);
        if (top == NULL || chmod(outer, 0755) < 0 || mkdir(top, 0755) < 0 ||
            (set->change_user &&
             (chown(outer, set->uid, set->gid) < 0 || chown(top, set->uid, set->gid) < 0))) {
                fprintf(stderr, "parity: %s: cannot make a directory: %s\n", dir, strerror(errno));
                exit(2);
        }
        out = memfd_create("transcript", MFD_CLOEXEC);
        if (out < 0 || fcntl(out, F_SETFL, O_APPEND) < 0)
                abort();
        fflush(NULL);
        pid = fork();
        if (pid < 0)
                abort();
        if (pid == 0)
                run_in_child(set, group, top, out);
        status = wait_for(pid);
        if (fstat(out, &st) < 0)
                abort();
        text = g_malloc((gsize)st.st_size + 64);
        while (got < st.st_size) {
                ssize_t n = pread(out, text + got, (size_t)(st.st_size - got), got);

                if (n <= 0)
                        abort();
                got += n;
        }
        snprintf(text + got, 64, "(end)\tstatus %x", (unsigned)status);
        close(out);
        remove_tree(outer);
        return g_strsplit(text, "\n", -1);
}

struct recorded {
        char *name, *text;
};

static void recorded_free(gpointer data)
{
        struct recorded *one = data;

        g_free(one->name);
        g_free(one->text);
        g_free(one);
}

/* Lines to steps, the names made unique. */
static GPtrArray *parse(char **lines)
{
        GPtrArray *list = g_ptr_array_new_with_free_func(recorded_free);
        g_autoptr(GHashTable) count = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        char **line;

        for (line = lines; *line != NULL; line++) {
                struct recorded *one;
                char *tab = strchr(*line, '\t');
                unsigned n;

                if (tab == NULL)
                        continue;
                one = g_new0(struct recorded, 1);
                one->name = g_strndup(*line, (gsize)(tab - *line));
                one->text = g_strdup(tab + 1);
                n = GPOINTER_TO_UINT(g_hash_table_lookup(count, one->name)) + 1;
                g_hash_table_replace(count, g_strdup(one->name), GUINT_TO_POINTER(n));
                if (n > 1) {
                        char *name = g_strdup_printf("%s#%u", one->name, n);

                        g_free(one->name);
                        one->name = name;
                }
                g_ptr_array_add(list, one);
        }
        return list;
}

/* Counts one step, and prints it if it came out differently and that is not known. */
static void judge(struct settings *set, const char *group, const char *name, const char *a,
                  const char *b)
{
        g_autofree char *full = g_strdup_printf("%s/%s", group, name);
        bool same = g_strcmp0(a, b) == 0, excused = false;
        guint i;

        set->steps++;
        for (i = 0; i < set->known->len; i++) {
                struct known *known = &g_array_index(set->known, struct known, i);

                if (!known->holds || fnmatch(known->pattern, full, 0) != 0)
                        continue;
                known->steps++;
                if (!same) {
                        known->seen++;
                        excused = true;
                }
        }
        if (same)
                return;
        if (excused) {
                set->known_seen++;
                return;
        }
        set->differences++;
        printf("%s: backing: %s mount: %s\n", full, a ?: "(not reached)", b ?: "(not reached)");
}

static void compare(struct settings *set, const char *group, GPtrArray *a, GPtrArray *b)
{
        g_autoptr(GHashTable) in_b = g_hash_table_new(g_str_hash, g_str_equal);
        guint i;

        for (i = 0; i < b->len; i++) {
                struct recorded *one = b->pdata[i];

                g_hash_table_insert(in_b, one->name, one->text);
        }
        for (i = 0; i < a->len; i++) {
                struct recorded *one = a->pdata[i];

                judge(set, group, one->name, one->text, g_hash_table_lookup(in_b, one->name));
                g_hash_table_remove(in_b, one->name);
        }
        for (i = 0; i < b->len; i++) {
                struct recorded *one = b->pdata[i];

                if (g_hash_table_contains(in_b, one->name))
                        judge(set, group, one->name, NULL, one->text);
        }
}

static bool wanted(const struct settings *set, const char *group)
{
        guint i;

        for (i = 0; i < set->only->len; i++) {
                if (fnmatch(set->only->pdata[i], group, 0) == 0)
                        return true;
        }
        return set->only->len == 0;
}

static void run_group(struct settings *set, const struct parity_group *group)
{
        g_auto(GStrv) lines_a = transcript(set, group, set->dirs[0], 'a');
        g_auto(GStrv) lines_b = transcript(set, group, set->dirs[1], 'b');
        g_autoptr(GPtrArray) a = parse(lines_a);
        g_autoptr(GPtrArray) b = parse(lines_b);
        unsigned before = set->steps;

        compare(set, group->name, a, b);
        if (g_getenv("PARITY_TRANSCRIPT") != NULL) {
                guint i;

                for (i = 0; i < a->len; i++) {
                        struct recorded *one = a->pdata[i];

                        printf("%s/%s\t%s\n", group->name, one->name, one->text);
                }
        }
        if (g_getenv("PARITY_VERBOSE") != NULL)
                printf("# %s: %u steps\n", group->name, set->steps - before);
}

/* Words about machines: true if `word` is one; then *ret_fits. */
static bool machine_word(const struct settings *set, const char *word, bool *ret_fits)
{
        unsigned major, minor, have_major = 0, have_minor = 0;
        struct utsname name;
        struct statfs fs;

        if (strcmp(word, "sometimes") == 0) {
                *ret_fits = false;
                return true;
        }
        if (strcmp(word, "ext4") == 0) {
                *ret_fits = statfs(set->dirs[0], &fs) == 0 && fs.f_type == EXT4_SUPER_MAGIC;
                return true;
        }
        if (sscanf(word, "linux>=%u.%u", &major, &minor) != 2)
                return false;
        *ret_fits = uname(&name) == 0 &&
                    sscanf(name.release, "%u.%u", &have_major, &have_minor) == 2 &&
                    (have_major > major || (have_major == major && have_minor >= minor));
        return true;
}

static void weigh_tags(const struct settings *set, const char *tags, struct known *known)
{
        g_auto(GStrv) words = g_strsplit(tags, ",", -1);
        char **word;
        bool fits;

        known->holds = known->must = true;
        for (word = words; *word != NULL; word++) {
                const bool not = **word == '!';
                const char *tag = not ? *word + 1 : *word;

                if (!not && machine_word(set, tag, &fits))
                        known->must &= fits;
                else if (strcmp(tag, "*") != 0 &&
                         g_ptr_array_find_with_equal_func(set->tags, tag, g_str_equal, NULL) == not)
                        known->holds = false;
        }
}

static void read_known(struct settings *set, const char *path)
{
        g_autofree char *text = NULL;
        g_autoptr(GError) error = NULL;
        g_auto(GStrv) lines = NULL;
        char **line;

        if (strcmp(path, "none") == 0)
                return;
        if (!g_file_get_contents(path, &text, NULL, &error)) {
                fprintf(stderr, "parity: %s\n", error->message);
                exit(2);
        }
        lines = g_strsplit(text, "\n", -1);
        for (line = lines; *line != NULL; line++) {
                g_auto(GStrv) part = NULL;
                struct known known = {0};

                if ((*line)[0] == '#' || (*line)[0] == '\0')
                        continue;
                part = g_strsplit(*line, "\t", 3);
                if (g_strv_length(part) != 3 || part[2][0] == '\0') {
                        fprintf(stderr, "parity: %s: not PATTERN<tab>TAGS<tab>REASON: %s\n", path,
                                *line);
                        exit(2);
                }
                known.pattern = g_strdup(part[0]);
                known.reason = g_strdup(part[2]);
                weigh_tags(set, part[1], &known);
                g_array_append_val(set->known, known);
        }
}

/* An entry that excuses nothing must go.  With --only, entries of other groups are not judged. */
static void judge_known(struct settings *set)
{
        guint i;

        for (i = 0; i < set->known->len; i++) {
                struct known *known = &g_array_index(set->known, struct known, i);
                g_autofree char *group = g_strndup(known->pattern, strcspn(known->pattern, "/"));

                if (!known->holds || !known->must || known->seen > 0 || !wanted(set, group))
                        continue;
                set->differences++;
                printf("known difference %s: %s\n", known->pattern,
                       known->steps > 0 ? "it does not differ any more" : "no such step");
        }
}

/* What the groups exec: a program that says who it is, and one that waits for the end of its input.
 */
static void helper(const char *what)
{
        if (strcmp(what, "ids") == 0) {
                printf("uid %u euid %u gid %u egid %u\n", getuid(), geteuid(), getgid(), getegid());
                exit(0);
        }
        if (strcmp(what, "wait") == 0) {
                char c;

                if (write(STDOUT_FILENO, "!", 1) < 0)
                        exit(1);
                while (read(STDIN_FILENO, &c, 1) > 0)
                        ;
                exit(0);
        }
        exit(2);
}

static _Noreturn void usage(void)
{
        fprintf(stderr,
                "usage: parity DIR_A DIR_B [--user UID:GID] [--only GROUP] [--known FILE|none] "
                "[--tag TAG] [--list]\n");
        exit(2);
}

static void parse_arguments(struct settings *set, int argc, char **argv, const char **ret_known)
{
        unsigned n = 0;
        int i;

        for (i = 1; i < argc; i++) {
                const char *value = i + 1 < argc ? argv[i + 1] : NULL;

                if (strcmp(argv[i], "--list") == 0) {
                        for (n = 0; n < N_ELEMENTS(groups); n++)
                                puts(groups[n].name);
                        exit(0);
                } else if (argv[i][0] != '-') {
                        if (n == 2)
                                usage();
                        set->dirs[n++] = argv[i];
                        continue;
                } else if (value == NULL) {
                        usage();
                } else if (strcmp(argv[i], "--helper") == 0) {
                        helper(value);
                } else if (strcmp(argv[i], "--user") == 0) {
                        set->change_user = true;
                        if (sscanf(value, "%u:%u", &set->uid, &set->gid) != 2)
                                usage();
                } else if (strcmp(argv[i], "--only") == 0) {
                        g_ptr_array_add(set->only, argv[i + 1]);
                } else if (strcmp(argv[i], "--tag") == 0) {
                        g_ptr_array_add(set->tags, argv[i + 1]);
                } else if (strcmp(argv[i], "--known") == 0) {
                        *ret_known = value;
                } else {
                        usage();
                }
                i++;
        }
        if (n != 2)
                usage();
}

int main(int argc, char **argv)
{
        struct settings set = {0};
        const char *known = PARITY_KNOWN;
        bool root;
        size_t i;
        unsigned ran = 0;

        setvbuf(stdout, NULL, _IOLBF, 0);
        set.only = g_ptr_array_new();
        set.tags = g_ptr_array_new();
        set.known = g_array_new(FALSE, FALSE, sizeof(struct known));
        parse_arguments(&set, argc, argv, &known);
        set.self = realpath("/proc/self/exe", NULL);
        for (i = 0; i < 2; i++) {
                set.dirs[i] = realpath(set.dirs[i], NULL);
                if (set.dirs[i] == NULL) {
                        perror("parity");
                        return 2;
                }
        }
        root = geteuid() == 0 && (!set.change_user || set.uid == 0);
        g_ptr_array_add(set.tags, (gpointer)(root ? "root" : "user"));
        read_known(&set, known);
        for (i = 0; i < N_ELEMENTS(groups); i++) {
                if (!wanted(&set, groups[i].name))
                        continue;
                run_group(&set, &groups[i]);
                ran++;
        }
        if (ran == 0) {
                fprintf(stderr, "parity: no such group\n");
                return 2;
        }
        judge_known(&set);
        if (set.known_seen > 0)
                printf("%u known differences\n", set.known_seen);
        printf("%u steps, %u differences\n", set.steps, set.differences);
        return set.differences > 0 ? 1 : 0;
}
