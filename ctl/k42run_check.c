/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * k42run --check: what the preload reaches in a program.
 *
 * The loader honours LD_PRELOAD for dynamically linked programs of the library's own word size, and
 * not for those that get privileges at exec.  The file is looked at, it is not run.
 */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "ctl/k42run.h"

#define SCRIPTS_MAX 4 /* interpreters of interpreters; the kernel's own limit */

struct elf_facts {
        bool is_elf, same_class, has_interpreter;
};

/* Reads the headers of the ELF file `fd` of this machine's word size. */
static void read_elf(int fd, struct elf_facts *ret_facts)
{
        Elf64_Ehdr header;
        struct elf_facts facts = {false};

        *ret_facts = facts;
        if (pread(fd, &header, sizeof header, 0) < (ssize_t)EI_NIDENT ||
            memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
                return;
        facts.is_elf = true;
        facts.same_class =
                header.e_ident[EI_CLASS] == (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32);
        for (unsigned i = 0; facts.same_class && i < header.e_phnum; i++) {
                Elf64_Phdr segment;
                const off_t at = (off_t)(header.e_phoff + (uint64_t)i * header.e_phentsize);

                if (pread(fd, &segment, sizeof segment, at) != sizeof segment)
                        break;
                if (segment.p_type == PT_INTERP)
                        facts.has_interpreter = true;
        }
        *ret_facts = facts;
}

/* The interpreter of a script, or NULL.  Free it.  What the kernel does not take and what is text
 * to its first line's end is run by execvp(3) and by shells as a script for /bin/sh. */
static char *script_interpreter(int fd)
{
        char line[256];
        ssize_t n = pread(fd, line, sizeof line - 1, 0);
        size_t length;
        char *word;

        if (n < 0)
                return NULL;
        line[n] = '\0';
        length = strcspn(line, "\n");
        if (line[0] != '#' || line[1] != '!')
                return memchr(line, '\0', MIN(length + 1, (size_t)n)) ? NULL : g_strdup("/bin/sh");
        line[length] = '\0';
        word = line + 2 + strspn(line + 2, " \t");
        word[strcspn(word, " \t")] = '\0';
        return *word ? g_strdup(word) : NULL;
}

/* Says why the loader would ignore LD_PRELOAD, or NULL. */
static const char *gets_privileges(const char *program, const struct stat *st)
{
        if (st->st_mode & S_ISUID && st->st_uid != getuid())
                return "setuid: the loader ignores preloads";
        if (st->st_mode & S_ISGID && st->st_gid != getgid())
                return "setgid: the loader ignores preloads";
        if (geteuid() != 0 && getxattr(program, "security.capability", NULL, 0) > 0)
                return "file capabilities: the loader ignores preloads";
        return NULL;
}

static bool check_file(const char *program, unsigned depth)
{
        g_autofree char *interpreter = NULL;
        struct elf_facts facts;
        const char *why;
        struct stat st;
        int fd = open(program, O_RDONLY | O_CLOEXEC);

        if (fd < 0 || fstat(fd, &st) < 0) {
                printf("program: %s: cannot be read: %s\n", program, g_strerror(errno));
                if (fd >= 0)
                        close(fd);
                return false;
        }
        read_elf(fd, &facts);
        interpreter = facts.is_elf ? NULL : script_interpreter(fd);
        close(fd);
        if (interpreter && depth < SCRIPTS_MAX) {
                printf("program: %s: a script for %s\n", program, interpreter);
                return check_file(interpreter, depth + 1);
        }
        why = !facts.is_elf            ? "neither an ELF program nor a script"
              : !facts.same_class      ? "another word size than the library's"
              : !facts.has_interpreter ? "statically linked: there is no loader that could preload"
                                       : gets_privileges(program, &st);
        printf("program: %s: %s\n", program, why ? why : "dynamically linked");
        return !why;
}

/* The fork mode, and whether what private mode needs of this machine is there. */
static bool check_fork(int mode)
{
        const bool proc = access("/proc/self/fd", X_OK) == 0;

        if (mode < 0) {
                printf("fork: shared only: no address space for the tables of private mode\n");
                return false;
        }
        printf("fork: %s\n", mode == 0   ? "shared, as POSIX says"
                             : mode == 1 ? "private: a child has its own offset in what it inherits; "
                                           "0, 1, 2 and O_APPEND stay shared"
                                         : "as the mount says (fork= in k42fs(1)), else shared");
        if (mode != 0 && !proc)
                printf("fork: /proc is not there: a private re-open fails\n");
        return mode == 0 || proc;
}

/* Loads the library into this process and asks it. */
static bool check_shim(const char *shim)
{
        void *library = dlopen(shim, RTLD_NOW | RTLD_LOCAL);
        const char *(*interception)(unsigned, int *);
        int (*active)(void), (*slots)(void), (*private_mode)(void);
        bool fork_works;
        const char *name;
        int touches;

        if (!library) {
                printf("library: %s\n", dlerror());
                return false;
        }
        *(void **)&active = dlsym(library, "k42_shim_active");
        *(void **)&slots = dlsym(library, "k42_shim_stdio_slots");
        *(void **)&interception = dlsym(library, "k42_shim_interception");
        *(void **)&private_mode = dlsym(library, "k42_shim_private");
        if (!active || !slots || !interception || !private_mode) {
                printf("library: %s: is another version than this program\n", shim);
                return false;
        }
        printf("library: %s: %s\n", shim, active() ? "works here" : "cannot make its tables here");
        printf("stdio: %s\n", slots() > 0 ? "covered, through libc's redirected slots"
                                          : "not covered: libc's tables are not as expected");
        fork_works = check_fork(private_mode());
        printf("intercepted (T touches a descriptor, B keeps the bitmaps):\n");
        for (unsigned i = 0; (name = interception(i, &touches)); i++)
                printf("  %c %s\n", touches ? 'T' : 'B', name);
        return active() && slots() > 0 && fork_works;
}

int k42run_check(const char *program, const char *shim)
{
        const bool program_covered = check_file(program, 0), shim_works = check_shim(shim);

        printf("covered: %s\n", program_covered && shim_works ? "yes" : "no");
        return program_covered && shim_works ? K42RUN_OK : K42RUN_FAILED;
}
