/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shim/stdio_slots.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "shim/account.h"
#include "shim/real.h"
#include "shim/touch.h"

/* A table in glibc 2.34 to 2.41: two words that are not functions, then 19 functions. */
#define TABLE_WORDS 21
#define TABLES_MAX  65536 /* bytes that all tables and two pages have certainly room in */

enum { SLOT_READ, SLOT_WRITE, SLOT_SEEK, SLOT_CLOSE, SLOTS };

static const char *const slot_symbols[SLOTS] = {
        [SLOT_READ] = "_IO_file_read",
        [SLOT_WRITE] = "_IO_file_write",
        [SLOT_SEEK] = "_IO_file_seek",
        [SLOT_CLOSE] = "_IO_file_close",
};

static ssize_t (*original_read)(FILE *stream, void *buf, ssize_t n);
static ssize_t (*original_write)(FILE *stream, const void *buf, ssize_t n);
static off64_t (*original_seek)(FILE *stream, off64_t at, int whence);
static int (*original_close)(FILE *stream);
static int redirected;

static ssize_t touching_read(FILE *stream, void *buf, ssize_t n)
{
        ssize_t done;

        if (touch(stream->_fileno) < 0)
                return -1;
        done = original_read(stream, buf, n);
        account_count(stream->_fileno, K42_READS, done, true);
        return done;
}

static ssize_t touching_write(FILE *stream, const void *buf, ssize_t n)
{
        ssize_t done;

        if (touch(stream->_fileno) < 0)
                return -1;
        done = original_write(stream, buf, n);
        account_count(stream->_fileno, K42_WRITES, done, true);
        return done;
}

static off64_t touching_seek(FILE *stream, off64_t at, int whence)
{
        if (touch(stream->_fileno) < 0)
                return -1;
        return original_seek(stream, at, whence);
}

static int touching_close(FILE *stream)
{
        fd_table_closing(stream->_fileno);
        return original_close(stream);
}

/* The place in `table` that holds `function`, if there is exactly one. */
static void **find_slot(void **table, const void *function)
{
        void **found = NULL;

        for (unsigned i = 2; i < TABLE_WORDS; i++) {
                if (table[i] != function)
                        continue;
                if (found)
                        return NULL;
                found = &table[i];
        }
        return found;
}

/* Both tables and what is between them, in one call: glibc has all its tables in one place. */
static bool make_writable(void **const tables[2], bool writable)
{
        const bool in_order = (uintptr_t)tables[0] < (uintptr_t)tables[1];
        const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
        const uintptr_t first = (uintptr_t)tables[in_order ? 0 : 1] & ~(page - 1);
        const uintptr_t last = (uintptr_t)(tables[in_order ? 1 : 0] + TABLE_WORDS) + page - 1;

        if (last - first > TABLES_MAX)
                return false;

        return mprotect((void *)first, (last & ~(page - 1)) - first,
                        PROT_READ | (writable ? PROT_WRITE : 0)) == 0;
}

int stdio_slots_redirect(void)
{
        const int saved = errno;
        void **tables[2] = {dlsym(RTLD_DEFAULT, "_IO_file_jumps"),
                            dlsym(RTLD_DEFAULT, "_IO_wfile_jumps")};
        void *originals[SLOTS], **slots[2][SLOTS];
        ssize_t (*new_read)(FILE *, void *, ssize_t) = touching_read;
        ssize_t (*new_write)(FILE *, const void *, ssize_t) = touching_write;
        off64_t (*new_seek)(FILE *, off64_t, int) = touching_seek;
        int (*new_close)(FILE *) = touching_close;
        const void *ours[SLOTS] = {&new_read, &new_write, &new_seek, &new_close};

        for (unsigned s = 0; s < SLOTS; s++) {
                originals[s] = dlsym(RTLD_DEFAULT, slot_symbols[s]);
                for (unsigned t = 0; t < 2; t++) {
                        if (!tables[t] || !originals[s])
                                goto out;
                        slots[t][s] = find_slot(tables[t], originals[s]);
                        if (!slots[t][s])
                                goto out;
                }
        }
        memcpy(&original_read, &originals[SLOT_READ], sizeof original_read);
        memcpy(&original_write, &originals[SLOT_WRITE], sizeof original_write);
        memcpy(&original_seek, &originals[SLOT_SEEK], sizeof original_seek);
        memcpy(&original_close, &originals[SLOT_CLOSE], sizeof original_close);
        if (!make_writable(tables, true))
                goto out;
        for (unsigned t = 0; t < 2; t++)
                for (unsigned s = 0; s < SLOTS; s++)
                        memcpy(slots[t][s], ours[s], sizeof(void *));
        make_writable(tables, false);
        redirected = 2 * SLOTS;
out:
        errno = saved;
        return redirected;
}

int stdio_slots_redirected(void)
{
        return redirected;
}
