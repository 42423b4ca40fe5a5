/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who gets attributes with a listing, and who does not. */
#include "fusefs/node/plus_advice.h"

#include <glib.h>

static struct plus_advice advice;

/* A listing of a directory with `files` files, of which the thread then looks up those that came
 * without attributes, if it `wants` them.  Returns how many came without. */
static unsigned list(pid_t tid, unsigned files, bool wants)
{
        unsigned plain = plus_advice_begin(&advice, tid);

        plain = MIN(plain, files);
        if (plain > 0)
                plus_advice_gave(&advice, tid, plain);
        for (unsigned i = 0; wants && i < plain; i++)
                plus_advice_looked_up(&advice, tid);
        return plain;
}

static void set_up(void)
{
        advice = (struct plus_advice){0};
}

/* find: a few in the first directory, then never again. */
static void test_wants_nothing(void)
{
        set_up();
        g_assert_cmpuint(list(10, 100, false), ==, 4);
        for (unsigned i = 0; i < 1000; i++)
                g_assert_cmpuint(list(10, 100, false), ==, 100);
}

/* ls -lR: some are left out now and then, which costs a few lookups. */
static void test_wants_all(void)
{
        unsigned left_out = 0;

        set_up();
        for (unsigned i = 0; i < 1000; i++)
                left_out += list(11, 100, true);
        g_assert_cmpuint(left_out, >=, 4);
        g_assert_cmpuint(left_out, <=, 4 + 4 * 1000 / 31);
}

/* Both changes of mind are noticed. */
static void test_changes(void)
{
        unsigned until;

        set_up();
        list(12, 100, false);
        g_assert_cmpuint(list(12, 100, false), ==, 100);
        g_assert_cmpuint(list(12, 100, true), ==, 100); /* looks them up … */
        g_assert_cmpuint(list(12, 100, true), ==, 0);   /* … and gets them from now on */
        for (until = 0; until < 100 && list(12, 100, false) < 100; until++)
                ;
        g_assert_cmpuint(until, <, 40);
}

/* Empty directories and directories of directories say nothing. */
static void test_no_files(void)
{
        set_up();
        for (unsigned i = 0; i < 10; i++)
                g_assert_cmpuint(list(13, 0, true), ==, 0);
        g_assert_cmpuint(list(13, 2, true), ==, 2);
        g_assert_cmpuint(list(13, 100, true), ==, 0);
        set_up();
        list(13, 100, false);
        for (unsigned i = 0; i < 10; i++)
                list(13, 0, false);
        g_assert_cmpuint(list(13, 100, false), ==, 100);
}

/* Two threads in one slot only forget; threads in different ones do not disturb each other. */
static void test_two(void)
{
        set_up();
        for (unsigned i = 0; i < 100; i++) {
                g_assert_cmpuint(list(14, 100, true), ==, i % 32 ? 0 : 4);
                g_assert_cmpuint(list(15, 100, false), ==, i ? 100 : 4);
        }
        g_assert_cmpuint(list(14 + PLUS_ADVICE_SLOTS, 100, true), ==, 4);
        g_assert_cmpuint(list(14, 100, true), ==, 4);
        plus_advice_looked_up(&advice, 14 + PLUS_ADVICE_SLOTS); /* of nobody that is known */
        g_assert_cmpuint(list(14, 100, true), ==, 0);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/plus-advice/wants-nothing", test_wants_nothing);
        g_test_add_func("/plus-advice/wants-all", test_wants_all);
        g_test_add_func("/plus-advice/changes", test_changes);
        g_test_add_func("/plus-advice/no-files", test_no_files);
        g_test_add_func("/plus-advice/two", test_two);
        return g_test_run();
}
