/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/control/fork_mode.h"

#include <fnmatch.h>
#include <string.h>

#define DELETED " (deleted)"

const char *fork_mode_parse(const char *value, char ***patterns)
{
        g_auto(GStrv) words = NULL;
        g_autoptr(GPtrArray) all = NULL;

        if (value && strcmp(value, "shared") == 0)
                return NULL;
        if (!value || !g_str_has_prefix(value, FORK_MODE_PRIVATE) || !value[strlen(FORK_MODE_PRIVATE)])
                return "needs shared, or private:PATTERN[:PATTERN…]";
        words = g_strsplit(value + strlen(FORK_MODE_PRIVATE), ":", -1);
        for (char **word = words; *word; word++)
                if (!**word || **word == '/')
                        return "a pattern is a path relative to the mount, and not empty";
        all = g_ptr_array_new_with_free_func(g_free);
        for (char **old = *patterns; old && *old; old++)
                g_ptr_array_add(all, g_strdup(*old));
        for (char **word = words; *word; word++)
                g_ptr_array_add(all, g_strdup(*word));
        g_ptr_array_add(all, NULL);
        g_strfreev(*patterns);
        g_ptr_array_set_free_func(all, NULL);
        *patterns = (char **)g_ptr_array_free(g_steal_pointer(&all), FALSE);
        return NULL;
}

bool fork_mode_matches(char *const *patterns, const char *path)
{
        for (; patterns && *patterns; patterns++)
                if (fnmatch(*patterns, path, 0) == 0)
                        return true;
        return false;
}

enum k42_fork fork_mode_of(const struct k42_options *options, struct server_object *object)
{
        g_autofree char *path = NULL;
        const char *relative;

        if (!options->fork_private)
                return K42_FORK_SHARED;
        path = object->ops->describe(object);
        if (g_str_has_suffix(path, DELETED))
                path[strlen(path) - strlen(DELETED)] = '\0';
        relative = *path == '/' ? path + 1 : path;
        return fork_mode_matches(options->fork_private, relative) ? K42_FORK_PRIVATE
                                                                  : K42_FORK_SHARED;
}
