/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * row: one handle, as a daemon tells of it.
 *
 * A row is an array of values, one for each column that has something stored; the other columns are
 * made from these when somebody asks (column.h).  Strings belong to the text that the row was
 * parsed from: whoever keeps a row keeps the text.  They are UTF-8 without NUL, and nothing else is
 * known about them.
 */
#include <glib.h>
#include <stdint.h>

enum value_kind {
        VALUE_NULL,
        VALUE_STRING,
        VALUE_INTEGER,
        VALUE_REAL,
};

struct value {
        enum value_kind kind;
        union {
                const char *string;
                int64_t integer;
                double real;
        };
};

/* Every column there is, in the order in which help shows them. */
enum column_id {
        /* what the daemon says; the first 21 are the contract's */
        COLUMN_HANDLE,
        COLUMN_PARENT,
        COLUMN_PID,
        COLUMN_PPID,
        COLUMN_UID,
        COLUMN_COMM,
        COLUMN_EXE,
        COLUMN_PATH,
        COLUMN_TYPE,
        COLUMN_FLAGS,
        COLUMN_RIGHTS,
        COLUMN_CLASS,
        COLUMN_SHARING,
        COLUMN_OPENED,
        COLUMN_READS,
        COLUMN_READ_BYTES,
        COLUMN_WRITES,
        COLUMN_WRITE_BYTES,
        COLUMN_MAPPINGS,
        COLUMN_MAPPED_BYTES,
        COLUMN_COUNTED_BY,
        COLUMN_CLOSED,
        COLUMN_DESCRIPTION,
        COLUMN_INODE,
        COLUMN_TOLD, /* how many of them */

        /* what tree adds: sums of the handle and all that came from it */
        COLUMN_TREE_READS = COLUMN_TOLD,
        COLUMN_TREE_READ_BYTES,
        COLUMN_TREE_WRITES,
        COLUMN_TREE_WRITE_BYTES,
        COLUMN_TREE_MAPPINGS,
        COLUMN_TREE_MAPPED_BYTES,
        /* what top adds: by second, since it looked last */
        COLUMN_OP_RATE,
        COLUMN_RATE,
        COLUMN_READ_RATE,
        COLUMN_WRITE_RATE,
        COLUMN_STORED, /* how many values a row has */

        /* what is made from the others */
        COLUMN_MOUNTPOINT = COLUMN_STORED,
        COLUMN_USER,
        COLUMN_AGE,
        COLUMN_DURATION,
        COLUMN_OPS,
        COLUMN_BYTES,
        COLUMNS,
};

struct row {
        const char *mountpoint; /* borrowed; NULL: not known */
        double now;             /* when the daemon was asked; seconds since the epoch */
        struct value values[COLUMN_STORED];
};

static inline void row_set_integer(struct row *row, enum column_id id, int64_t value)
{
        row->values[id] = (struct value){.kind = VALUE_INTEGER, .integer = value};
}

static inline void row_set_real(struct row *row, enum column_id id, double value)
{
        row->values[id] = (struct value){.kind = VALUE_REAL, .real = value};
}

/* A stored value; 0 or NULL when it is of another kind. */
static inline int64_t row_integer(const struct row *row, enum column_id id)
{
        return row->values[id].kind == VALUE_INTEGER ? row->values[id].integer : 0;
}

static inline const char *row_string(const struct row *row, enum column_id id)
{
        return row->values[id].kind == VALUE_STRING ? row->values[id].string : NULL;
}

/* Parses the JSON object that begins at `text`, which must be UTF-8 and may be any; its strings are
 * decoded where they are.  Sets row->values; keys that are no column are skipped.  Returns NULL and
 * where the object ends, or what is wrong with it (a constant); then the text is spoilt. */
const char *row_parse(char *text, const char *end, struct row *row, char **ret_end);

/* Parses an array of such objects: calls fn for each, with a copy of `common` that has its values.
 * Nothing but blanks may follow the array before `end`.  NULL, or what is wrong. */
const char *rows_parse(char *text, const char *end, const struct row *common,
                       void (*fn)(const struct row *row, void *data), void *data);
