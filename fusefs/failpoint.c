/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/failpoint.h"

#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "fusefs/resume/requests.h"

#define VISITS_MAX 1000000

/* The section's bounds, which the linker defines. */
extern struct failpoint __start_failpoints[], __stop_failpoints[];

/* In the mapping of `requests`, or NULL.  Constant once there are threads; the text is written
 * under the lock, and by the thread that is about to kill everything. */
static char *text;
static bool crash; /* the armed point's way to die; as constant as what is armed */
static GMutex lock;

static struct failpoint *find(const char *name, size_t length)
{
        for (struct failpoint *p = __start_failpoints; p < __stop_failpoints; p++)
                if (strlen(p->name) == length && memcmp(p->name, name, length) == 0)
                        return p;
        return NULL;
}

/* One point of what is armed, as it is written. */
struct spec {
        size_t length; /* all of it */
        const char *name;
        size_t name_length;
        int visits;
        bool crash;
};

/* The first point of `text_`.  Several places may have one name: they are one point of which any
 * visit counts for itself.  Returns 0 or -EINVAL. */
static int parse_one(const char *text_, struct spec *ret_spec)
{
        struct spec spec = {
                .length = strcspn(text_, ","),
                .name = text_ + (*text_ == '!'),
                .visits = 1,
                .crash = *text_ == '!',
        };
        const char *number;
        char *end = NULL;
        long visits;

        spec.name_length = strcspn(spec.name, ":,");
        if (!find(spec.name, spec.name_length))
                return -EINVAL;
        number = spec.name + spec.name_length;
        if (*number == ':') {
                visits = strtol(number + 1, &end, 10);
                if (end != text_ + spec.length || visits < 1 || visits > VISITS_MAX)
                        return -EINVAL;
                spec.visits = (int)visits;
        }
        *ret_spec = spec;
        return 0;
}

static int check(const char *specs)
{
        while (*specs) {
                struct spec spec;
                const int r = parse_one(specs, &spec);

                if (r < 0)
                        return r;
                specs += spec.length;
                if (*specs == ',')
                        specs++;
        }
        return 0;
}

static void arm_first(void)
{
        struct spec spec = {.name_length = 0};

        if (*text == '\0' || parse_one(text, &spec) < 0)
                spec.name_length = 0;
        crash = spec.crash;
        for (struct failpoint *p = __start_failpoints; p < __stop_failpoints; p++)
                atomic_store(&p->left, spec.name_length > 0 && strlen(p->name) == spec.name_length &&
                                                       memcmp(p->name, spec.name, spec.name_length) == 0
                                               ? spec.visits
                                               : 0);
}

void failpoint_hit(struct failpoint *point)
{
        const char *next;

        if (atomic_fetch_sub(&point->left, 1) != 1)
                return;
        if (text) {
                next = text + strcspn(text, ",");
                next += *next == ',';
                memmove(text, next, strlen(next) + 1);
        }
        if (crash)
                abort();
        raise(SIGKILL);
}

void failpoint_init(struct requests *requests, bool resume)
{
        const char *env = getenv("K42_FAILPOINT");
        int r;

        text = requests_failpoint(requests);
        if (!resume && env && *env) {
                r = failpoint_arm(env);
                if (r < 0)
                        g_warning("K42_FAILPOINT=%s: %s", env, g_strerror(-r));
        } else {
                arm_first();
        }
}

int failpoint_arm(const char *spec)
{
        int r;

        if (!text)
                return -ENOTSUP;
        if (strlen(spec) >= REQUESTS_FAILPOINT)
                return -ENAMETOOLONG;
        r = check(spec);
        if (r < 0)
                return r;
        g_mutex_lock(&lock);
        for (struct failpoint *p = __start_failpoints; p < __stop_failpoints; p++)
                atomic_store(&p->left, 0);
        strcpy(text, spec);
        arm_first();
        g_mutex_unlock(&lock);
        return 0;
}

const char *failpoint_armed(void)
{
        return text ? text : "";
}

static int by_name(const void *a, const void *b)
{
        return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void failpoint_list(FILE *to)
{
        const size_t n = (size_t)(__stop_failpoints - __start_failpoints);
        g_autofree const char **names = g_new(const char *, n + 1);

        for (size_t i = 0; i < n; i++)
                names[i] = __start_failpoints[i].name;
        qsort(names, n, sizeof *names, by_name);
        for (size_t i = 0; i < n; i++)
                if (i == 0 || strcmp(names[i], names[i - 1]) != 0)
                        fprintf(to, "%s\n", names[i]);
}
