/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cobj/access_rights.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* The letter of bit i is letters[i]. */
static const char letters[] = "rwdc";

bool access_rights_subset(access_rights part, access_rights whole)
{
        return (part & ~whole) == 0;
}

access_rights access_rights_from_open_flags(int open_flags)
{
        access_rights rights = RIGHT_DUPLICATE | RIGHT_CONTROL;

        if (open_flags & O_PATH)
                return rights;
        switch (open_flags & O_ACCMODE) {
        case O_RDONLY:
                return rights | RIGHT_READ;
        case O_WRONLY:
                return rights | RIGHT_WRITE;
        case O_RDWR:
                return rights | RIGHT_READ | RIGHT_WRITE;
        default: /* 3: ioctl only */
                return rights;
        }
}

const char *access_rights_format(access_rights rights, char buf[static ACCESS_RIGHTS_STRING_MAX])
{
        char *to = buf;

        for (unsigned i = 0; letters[i]; i++)
                if (rights & (1u << i))
                        *to++ = letters[i];
        if (to == buf)
                *to++ = '-';
        *to = '\0';
        return buf;
}

int access_rights_parse(const char *text, access_rights *ret_rights)
{
        access_rights rights = RIGHTS_NONE;

        if (!*text)
                return -EINVAL;
        if (strcmp(text, "-") == 0)
                text = "";
        for (; *text; text++) {
                const char *letter = strchr(letters, *text);
                access_rights right;

                if (!letter)
                        return -EINVAL;
                right = 1u << (letter - letters);
                if (rights & right)
                        return -EINVAL;
                rights |= right;
        }
        *ret_rights = rights;
        return 0;
}
