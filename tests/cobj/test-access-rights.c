/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>

#include "cobj/access_rights.h"

static void test_subsets(void)
{
        for (access_rights part = 0; part <= RIGHTS_ALL; part++)
                for (access_rights whole = 0; whole <= RIGHTS_ALL; whole++)
                        g_assert_true(access_rights_subset(part, whole) ==
                                      ((part | whole) == whole));
}

static void test_text(void)
{
        char buf[ACCESS_RIGHTS_STRING_MAX];
        const char *const wrong[] = {"", "rr", "x", "r ", " r", "r-", "-r", "--", "rwdcr", "R"};
        access_rights parsed;

        for (access_rights rights = 0; rights <= RIGHTS_ALL; rights++) {
                g_assert_cmpint(access_rights_parse(access_rights_format(rights, buf), &parsed), ==,
                                0);
                g_assert_cmpuint(parsed, ==, rights);
        }
        g_assert_cmpstr(access_rights_format(RIGHTS_NONE, buf), ==, "-");
        g_assert_cmpstr(access_rights_format(RIGHTS_ALL, buf), ==, "rwdc");
        g_assert_cmpint(access_rights_parse("cdwr", &parsed), ==, 0);
        g_assert_cmpuint(parsed, ==, RIGHTS_ALL);
        for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
                parsed = 77;
                g_assert_cmpint(access_rights_parse(wrong[i], &parsed), ==, -EINVAL);
                g_assert_cmpuint(parsed, ==, 77);
        }
}

static void test_open_flags(void)
{
        const access_rights always = RIGHT_DUPLICATE | RIGHT_CONTROL;
        const int others[] = {0, O_APPEND, O_TRUNC | O_CREAT, O_DIRECTORY, O_CLOEXEC | O_NONBLOCK};

        for (unsigned i = 0; i < G_N_ELEMENTS(others); i++) {
                g_assert_cmpuint(access_rights_from_open_flags(O_RDONLY | others[i]), ==,
                                 always | RIGHT_READ);
                g_assert_cmpuint(access_rights_from_open_flags(O_WRONLY | others[i]), ==,
                                 always | RIGHT_WRITE);
                g_assert_cmpuint(access_rights_from_open_flags(O_RDWR | others[i]), ==, RIGHTS_ALL);
                g_assert_cmpuint(access_rights_from_open_flags(O_ACCMODE | others[i]), ==, always);
                g_assert_cmpuint(access_rights_from_open_flags(O_PATH | O_RDWR | others[i]), ==,
                                 always);
        }
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/access-rights/subsets", test_subsets);
        g_test_add_func("/access-rights/text", test_text);
        g_test_add_func("/access-rights/open-flags", test_open_flags);
        return g_test_run();
}
