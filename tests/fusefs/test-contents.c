/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When the kernel may keep what it has cached. */
#include "fusefs/node/contents.h"

#include <glib.h>

#define SECOND INT64_C(1000000)

static struct fs_stat changed_at(int64_t us, off_t size)
{
        const struct timespec t = {.tv_sec = us / SECOND, .tv_nsec = us % SECOND * 1000};

        return (struct fs_stat){.st = {.st_mtim = t, .st_ctim = t, .st_size = size}};
}

static void test_kept(void)
{
        contents_word word = 0;
        const struct fs_stat st = changed_at(100 * SECOND, 5);

        g_assert_cmpint(contents_look(&word, &st, 200 * SECOND), ==, CONTENTS_NEW);
        g_assert_cmpint(contents_look(&word, &st, 200 * SECOND), ==, CONTENTS_NEW);
        g_assert_cmpint(contents_look(&word, &st, 201 * SECOND + SECOND / 2), ==, CONTENTS_NEW);
        g_assert_cmpint(contents_look(&word, &st, 202 * SECOND), ==, CONTENTS_KEPT);
        g_assert_cmpint(contents_look(&word, &st, 9000 * SECOND), ==, CONTENTS_KEPT);
        contents_forget(&word);
        g_assert_cmpint(contents_look(&word, &st, 9000 * SECOND), ==, CONTENTS_NEW);
}

static void test_changed(void)
{
        struct fs_stat others[] = {changed_at(100 * SECOND, 6), changed_at(100 * SECOND + 1, 5),
                                   changed_at(100 * SECOND, 5), changed_at(100 * SECOND, 5)};

        others[2].st.st_ctim.tv_nsec++; /* the modification time was set back */
        others[3].st.st_mtim.tv_nsec++;
        for (unsigned i = 0; i < G_N_ELEMENTS(others); i++) {
                contents_word word = 0;
                const struct fs_stat st = changed_at(100 * SECOND, 5);

                contents_look(&word, &st, 200 * SECOND);
                g_assert_cmpint(contents_look(&word, &st, 300 * SECOND), ==, CONTENTS_KEPT);
                g_assert_cmpint(contents_look(&word, &others[i], 300 * SECOND), ==, CONTENTS_NEW);
                g_assert_cmpint(contents_look(&word, &others[i], 400 * SECOND), ==, CONTENTS_KEPT);
                g_assert_cmpint(contents_look(&word, &st, 400 * SECOND), ==, CONTENTS_NEW);
        }
}

/* Written within a step of the clock after it was looked at: the same times, other contents. */
static void test_young(void)
{
        contents_word word = 0;
        const struct fs_stat st = changed_at(100 * SECOND, 5);
        const struct fs_stat future = changed_at(900 * SECOND, 5);

        g_assert_cmpint(contents_look(&word, &st, 100 * SECOND), ==, CONTENTS_YOUNG);
        g_assert_cmpint(contents_look(&word, &st, 102 * SECOND - 1), ==, CONTENTS_YOUNG);
        g_assert_cmpint(contents_look(&word, &st, 102 * SECOND), ==, CONTENTS_NEW);
        g_assert_cmpint(contents_look(&word, &st, 104 * SECOND), ==, CONTENTS_KEPT);
        g_assert_cmpint(contents_look(&word, &future, 104 * SECOND), ==, CONTENTS_YOUNG);
        g_assert_cmpint(contents_look(&word, &st, 200 * SECOND), ==, CONTENTS_NEW);
}

/* Before 1970, and where the seconds that are kept begin again. */
static void test_odd_times(void)
{
        contents_word word = 0;
        const struct fs_stat old = changed_at(-1000 * SECOND, 5);
        const int64_t wrap = (INT64_C(1) << 20) * SECOND;

        g_assert_cmpint(contents_look(&word, &old, wrap - SECOND), ==, CONTENTS_NEW);
        g_assert_cmpint(contents_look(&word, &old, wrap), ==, CONTENTS_NEW);
        g_assert_cmpint(contents_look(&word, &old, wrap + SECOND), ==, CONTENTS_KEPT);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/contents/kept", test_kept);
        g_test_add_func("/contents/changed", test_changed);
        g_test_add_func("/contents/young", test_young);
        g_test_add_func("/contents/odd-times", test_odd_times);
        return g_test_run();
}
