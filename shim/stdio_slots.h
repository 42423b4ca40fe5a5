/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * stdio_slots: stdio's reads and writes.
 *
 * They happen inside libc, where no preloaded read() is seen.  But each stream calls through a table
 * of functions, and glibc exports the two tables of ordinary files, _IO_file_jumps and _IO_wfile_jumps,
 * as well as the four functions in them that make system calls: _IO_file_read, _IO_file_write,
 * _IO_file_seek, _IO_file_close.  Their slots are found by comparing, and get functions of ours that
 * touch the stream's descriptor and then call the original.  The tables are read-only after
 * relocation, so their pages are made writable for that moment.
 *
 * Where something is not as expected, nothing is changed.
 */

/* Once, in the constructor.  Returns how many slots were redirected: 8, or 0 if nothing was done. */
int stdio_slots_redirect(void);

/* What stdio_slots_redirect() returned. */
int stdio_slots_redirected(void);
