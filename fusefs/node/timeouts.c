/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/node/timeouts.h"

#include "fusefs/worker/channel.h"
#include "fusefs/coherent/coherent.h"
#include "fusefs/node/dir_linux_fs.h"
#include "fusefs/node/node_table.h"

#define FOREVER  1e9
#define LONG     3600.0
#define REGULAR  60.0
#define NEGATIVE 10.0
#define SHORT    1.0

bool timeouts_short(double said)
{
        return said >= 0 && said <= SHORT;
}

static double choose(const struct k42_options *options, double said, bool covered,
                     double covered_for)
{
        if (said >= 0)
                return said;
        if (options->exclusive)
                return FOREVER;
        return covered ? covered_for : SHORT;
}

double timeouts_attr(struct server_file *file, const struct fs_stat *st, uint64_t seen)
{
        struct k42_mount *mount = file->table->mount;
        const struct k42_options *options = &mount->options;
        const bool covered = coherent_covers(mount->coherent, file);
        double timeout = choose(options, options->attr_timeout, covered,
                                S_ISREG(file->type) ? REGULAR : LONG);

        /* Who has no name any more is not found by events when its number is used again. */
        if (server_file_has(file, NODE_STORES_UNSEEN) || atomic_load(&file->opens.writers) > 0 ||
            (st->st.st_nlink == 0 && options->attr_timeout < 0 && !options->exclusive))
                timeout = MIN(timeout, SHORT);
        return covered && coherent_changed(mount->coherent, file, seen) ? 0 : timeout;
}

double timeouts_entry(struct dir_linux_fs *dir, uint64_t seen)
{
        struct k42_mount *mount = dir->file.table->mount;
        const bool covered = coherent_covers(mount->coherent, &dir->file);

        if (covered && coherent_changed(mount->coherent, &dir->file, seen))
                return 0;
        return choose(&mount->options, mount->options.entry_timeout, covered, LONG);
}

double timeouts_negative(struct dir_linux_fs *dir, uint64_t seen)
{
        struct k42_mount *mount = dir->file.table->mount;
        const double timeout = timeouts_entry(dir, seen);

        if (mount->options.exclusive)
                return timeout;
        return coherent_covers(mount->coherent, &dir->file) ? MIN(timeout, NEGATIVE) : 0;
}

void timeouts_opened_fast(struct server_file *file, int flags, enum io_class io_class)
{
        const int access = flags & O_ACCMODE;

        /* Of others' writes, or of stores, nothing will be told from now on. */
        if (access == O_RDONLY || (access == O_WRONLY && io_class != IO_CLASS_FAST) ||
            (access == O_RDWR && kept_node_set(file->kept, NODE_STORES_UNSEEN)))
                return;
        /* What the kernel was told before is good for longer.  (With O_TRUNC it forgets by itself.)
         */
        if ((atomic_load(&file->kept->nlookup) > 0 || file->id == FUSE_ROOT_ID) && !(flags & O_TRUNC))
                channel_forget_attributes(file->table->mount->channel, file->id);
}
