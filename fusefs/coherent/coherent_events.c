/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel is trusted not to lie, but a length is checked before it is used all the same: what
 * cannot be understood must end in one more question of the kernel, not in a daemon that is dead.
 */
#include "fusefs/coherent/coherent_events.h"

#include <fcntl.h>
#include <linux/fanotify.h>
#include <string.h>

/* <linux/exportfs.h> of the kernel; what user space gets in file_handle.handle_type. */
#define HANDLE_INO32_GEN 0x01 /* ext4 and most others: u32 inode, u32 generation */
#define HANDLE_INO64_GEN 0x81 /* xfs: u64 inode, u32 generation */

/* Reads the part of an information record behind its header: fsid and handle, and the name of
 * `with_name`.  False if it does not fit. */
static bool parse_fid(const unsigned char *record, size_t len, bool with_name,
                      struct coherent_event *event)
{
        const size_t fsid_at = offsetof(struct fanotify_event_info_fid, fsid);
        const size_t head_at = offsetof(struct fanotify_event_info_fid, handle);
        const size_t handle_at = head_at + offsetof(struct file_handle, f_handle);
        struct file_handle head;
        const unsigned char *name;

        if (len < handle_at)
                return false;
        memcpy(event->fsid, record + fsid_at, sizeof event->fsid);
        memcpy(&head, record + head_at, offsetof(struct file_handle, f_handle));
        if (head.handle_bytes > len - handle_at)
                return false;
        event->handle_type = (unsigned)head.handle_type;
        event->handle_bytes = head.handle_bytes;
        event->handle = record + handle_at;
        if (!with_name)
                return true;
        name = event->handle + head.handle_bytes;
        if (!memchr(name, '\0', len - handle_at - head.handle_bytes))
                return false;
        event->name = (const char *)name;
        return true;
}

static bool parse_record(const unsigned char *record, size_t len, struct coherent_event *event)
{
        struct fanotify_event_info_header header;

        memcpy(&header, record, sizeof header);
        switch (header.info_type) {
        case FAN_EVENT_INFO_TYPE_DFID_NAME:
                return parse_fid(record, len, true, event);
        case FAN_EVENT_INFO_TYPE_FID:
        case FAN_EVENT_INFO_TYPE_DFID:
                return event->handle || parse_fid(record, len, false, event);
        default:
                return true; /* of no interest */
        }
}

bool coherent_event_next(const void *buf, size_t size, size_t *offset,
                         struct coherent_event *ret_event, bool *ret_broken)
{
        const unsigned char *at = (const unsigned char *)buf + *offset;
        const size_t left = size - *offset;
        struct fanotify_event_metadata metadata;
        struct coherent_event event = {.handle = NULL};

        *ret_broken = false;
        if (left == 0)
                return false;
        *ret_broken = true;
        if (left < sizeof metadata)
                return false;
        memcpy(&metadata, at, sizeof metadata);
        if (metadata.vers != FANOTIFY_METADATA_VERSION || metadata.event_len > left ||
            metadata.metadata_len < sizeof metadata || metadata.metadata_len > metadata.event_len)
                return false;
        event.mask = metadata.mask;
        event.pid = metadata.pid;
        for (size_t pos = metadata.metadata_len; pos < metadata.event_len;) {
                struct fanotify_event_info_header header;

                if (metadata.event_len - pos < sizeof header)
                        return false;
                memcpy(&header, at + pos, sizeof header);
                if (header.len < sizeof header || header.len > metadata.event_len - pos ||
                    !parse_record(at + pos, header.len, &event))
                        return false;
                pos += header.len;
        }
        *offset += metadata.event_len;
        *ret_event = event;
        *ret_broken = false;
        return true;
}

static uint32_t u32_at(const unsigned char *p)
{
        uint32_t value;

        memcpy(&value, p, sizeof value);
        return value;
}

bool coherent_handle_ino(unsigned type, unsigned bytes, const unsigned char *handle, ino_t *ret_ino)
{
        uint64_t ino;

        if (type == HANDLE_INO32_GEN && bytes == 8) {
                *ret_ino = u32_at(handle);
                return true;
        }
        if (type == HANDLE_INO32_GEN && bytes == 12) { /* tmpfs: generation, then the number */
                *ret_ino = u32_at(handle + 4) | (uint64_t)u32_at(handle + 8) << 32;
                return true;
        }
        if (type == HANDLE_INO64_GEN && bytes >= 12) {
                memcpy(&ino, handle, sizeof ino);
                *ret_ino = ino;
                return true;
        }
        return false;
}
