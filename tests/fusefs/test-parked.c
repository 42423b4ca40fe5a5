/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* parked: what is in it after many random changes is what a plain list has, and nothing leaks. */
#include <fcntl.h>
#include <glib.h>
#include <stdbool.h>
#include <unistd.h>

#include "fusefs/holder/parked.h"

#define KEYS  300
#define STEPS 200000

static int count_fds(void)
{
        g_autoptr(GDir) dir = g_dir_open("/proc/self/fd", 0, NULL);
        int n = 0;

        while (g_dir_read_name(dir))
                n++;
        return n;
}

static bool is_open(int fd)
{
        return fcntl(fd, F_GETFD) >= 0;
}

static void test_random(void)
{
        g_autoptr(GRand) random = g_rand_new_with_seed(1);
        int expected[KEYS];
        struct parked parked;
        const int before = count_fds(), null = open("/dev/null", O_RDONLY | O_CLOEXEC);

        for (int i = 0; i < KEYS; i++)
                expected[i] = -1;
        g_assert_cmpint(parked_init(&parked, 512), ==, 0);
        for (int step = 0; step < STEPS; step++) {
                const int i = g_rand_int_range(random, 0, KEYS);
                /* keys that fall onto few places */
                const uint64_t key = UINT64_C(1) << 56 | (uint64_t)i << 32;

                if (g_rand_boolean(random)) {
                        expected[i] = fcntl(null, F_DUPFD_CLOEXEC, 10);
                        parked_put(&parked, key, expected[i]);
                } else {
                        parked_drop(&parked, key);
                        g_assert_true(expected[i] < 0 || !is_open(expected[i]));
                        expected[i] = -1;
                }
        }
        for (size_t n = 0; n < parked.used; n++) {
                const int i = (int)(parked.entries[n].key >> 32 & 0xffff);

                g_assert_cmpint(parked.entries[n].fd, ==, expected[i]);
                g_assert_true(is_open(expected[i]));
                expected[i] = -1;
        }
        for (int i = 0; i < KEYS; i++)
                g_assert_cmpint(expected[i], ==, -1);
        parked_drop_all(&parked);
        close(null);
        g_assert_cmpint(count_fds(), ==, before);
}

/* More than there is room for is closed, not kept; a key of 0 as well. */
static void test_full(void)
{
        struct parked parked;

        g_assert_cmpint(parked_init(&parked, 10), ==, 0);
        for (uint64_t key = 1; key <= parked.most + 5; key++)
                parked_put(&parked, key, open("/dev/null", O_RDONLY | O_CLOEXEC));
        g_assert_cmpuint(parked.used, ==, parked.most);
        parked_put(&parked, 0, open("/dev/null", O_RDONLY | O_CLOEXEC));
        parked_drop(&parked, 1);
        parked_put(&parked, 0, open("/dev/null", O_RDONLY | O_CLOEXEC));
        g_assert_cmpuint(parked.used, ==, parked.most - 1);
        parked_drop_all(&parked);
        g_assert_cmpuint(parked.used, ==, 0);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/parked/random", test_random);
        g_test_add_func("/parked/full", test_full);
        return g_test_run();
}
