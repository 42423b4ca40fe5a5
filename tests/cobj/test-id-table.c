/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cobj/id_table.h"

static int things[1000];

static void test_stale_and_forged(void)
{
        g_autoptr(K42IdTable) table = id_table_new(1, 100);
        uint64_t id, again;

        g_assert_cmpint(id_table_alloc(table, &things[0], &id), ==, 0);
        g_assert_true(id_table_get(table, id) == &things[0]);
        g_assert_null(id_table_get(table, ID_NONE));
        g_assert_null(id_table_get(table, ID_INDEX(id))); /* generation 0 */
        g_assert_null(id_table_get(table, id + 1));
        g_assert_null(id_table_get(table, id + (UINT64_C(1) << 32)));
        g_assert_null(id_table_get(table, UINT64_MAX));
        g_assert_true(id_table_free(table, id));
        g_assert_null(id_table_get(table, id));
        g_assert_null(
                id_table_get(table, id + (UINT64_C(1) << 32))); /* the next one, not given yet */
        g_assert_false(id_table_free(table, id));
        g_assert_false(id_table_free(table, id + (UINT64_C(1) << 32)));
        g_assert_cmpint(id_table_alloc(table, &things[1], &again), ==, 0);
        g_assert_cmpuint(ID_INDEX(again), ==, ID_INDEX(id)); /* the same slot … */
        g_assert_cmpuint(again, !=, id);                     /* … and another id */
        g_assert_true(id_table_get(table, again) == &things[1]);
        g_assert_null(id_table_get(table, id));
        g_assert_true(id_table_free(table, again));
        g_assert_cmpuint(id_table_count(table), ==, 0);
}

static void test_limit_and_first(void)
{
        g_autoptr(K42IdTable) table = id_table_new(7, 300);
        uint64_t ids[300], one;

        for (unsigned i = 0; i < 300; i++) {
                g_assert_cmpint(id_table_alloc(table, &things[i], &ids[i]), ==, 0);
                g_assert_cmpuint(ID_INDEX(ids[i]), >=, 7);
        }
        g_assert_cmpint(id_table_alloc(table, &things[0], &one), ==, -ENFILE);
        for (unsigned i = 0; i < 300; i++)
                g_assert_true(id_table_get(table, ids[i]) == &things[i]);
        g_assert_true(id_table_free(table, ids[150]));
        g_assert_cmpint(id_table_alloc(table, &things[0], &one), ==, 0);
        g_assert_cmpint(id_table_alloc(table, &things[0], &one), ==, -ENFILE);
}

static void test_reserve(void)
{
        g_autoptr(K42IdTable) table = id_table_new(1, 10);
        uint64_t id;

        g_assert_cmpint(id_table_reserve(table, &id), ==, 0);
        g_assert_null(id_table_get(table, id));
        g_assert_false(id_table_free(table, id)); /* nobody has it yet */
        id_table_publish(table, id, &things[3]);
        g_assert_true(id_table_get(table, id) == &things[3]);
        g_assert_true(id_table_free(table, id));
        g_assert_cmpint(id_table_reserve(table, &id), ==, 0);
        id_table_unreserve(table, id);
        g_assert_null(id_table_get(table, id));
        g_assert_cmpuint(id_table_count(table), ==, 0);
}

static bool refuse(void *object)
{
        return false;
}

static bool accept(void *object)
{
        return true;
}

static void count_one(uint64_t id, void *object, void *data)
{
        g_assert_cmpuint(id, !=, 0);
        g_assert_nonnull(object);
        (*(unsigned *)data)++;
}

static void test_ref_and_foreach(void)
{
        g_autoptr(K42IdTable) table = id_table_new(1, 1000);
        uint64_t ids[200];
        unsigned seen = 0;

        for (unsigned i = 0; i < 200; i++)
                id_table_alloc(table, &things[i], &ids[i]);
        for (unsigned i = 0; i < 200; i += 2)
                id_table_free(table, ids[i]);
        id_table_foreach(table, count_one, &seen);
        g_assert_cmpuint(seen, ==, 100);
        g_assert_null(id_table_get_ref(table, ids[1], refuse));
        g_assert_true(id_table_get_ref(table, ids[1], accept) == &things[1]);
        g_assert_null(id_table_get_ref(table, ids[0], accept));
}

static bool odd_only(void *object)
{
        return ((int *)object - things) % 2 == 1;
}

/* More slots than are looked at under one hold of the lock, most of them empty. */
static void test_next(void)
{
        g_autoptr(K42IdTable) table = id_table_new(5, 100000);
        uint64_t ids[10000], more;
        uint32_t cursor = 0;
        int *object;

        g_assert_null(id_table_next_ref(table, &cursor, accept));
        for (unsigned i = 0; i < G_N_ELEMENTS(ids); i++)
                id_table_alloc(table, &things[i % 1000], &ids[i]);
        for (unsigned i = 0; i < G_N_ELEMENTS(ids); i++)
                if (i != 0 && i != 3001 && i != 3002 && i != 9999)
                        id_table_free(table, ids[i]);
        id_table_reserve(table, &more); /* not published: not met */
        cursor = 0;
        object = id_table_next_ref(table, &cursor, accept);
        g_assert_true(object == &things[0]);
        object = id_table_next_ref(table, &cursor, odd_only);
        g_assert_true(object == &things[1]); /* of 3001 */
        object = id_table_next_ref(table, &cursor, odd_only);
        g_assert_true(object == &things[999]); /* of 9999; 3002 was refused */
        g_assert_null(id_table_next_ref(table, &cursor, accept));
        g_assert_null(id_table_next_ref(table, &cursor, accept));
        id_table_unreserve(table, more);
}

static void test_text(void)
{
        const uint64_t ids[] = {1, ID_MAKE(1, 1), ID_MAKE(1, 0), UINT64_MAX, ID_MAKE(7, 42)};
        const char *const wrong[] = {
                "",      ".",    "1",    "1.",   ".1",   "0.0",          "01.1",
                "1.01",  "+1.1", "-1.1", " 1.1", "1.1 ", "4294967296.1", "1.4294967296",
                "1.1.1", "a.b",  "0x1.1"};
        char buf[ID_STRING_MAX];
        uint64_t parsed;

        for (unsigned i = 0; i < G_N_ELEMENTS(ids); i++) {
                g_assert_cmpint(id_parse(id_format(ids[i], buf), &parsed), ==, 0);
                g_assert_cmpuint(parsed, ==, ids[i]);
        }
        g_assert_cmpstr(id_format(ID_MAKE(7, 42), buf), ==, "42.7");
        for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++)
                g_assert_cmpint(id_parse(wrong[i], &parsed), ==, -EINVAL);
}

struct storm {
        struct id_table *table;
        _Atomic uint64_t shared[16]; /* ids that anybody may look up or free */
};

static void *storm_thread(void *data)
{
        struct storm *storm = data;
        unsigned seed = (unsigned)(uintptr_t)&seed;

        for (int i = 0; i < 50000; i++) {
                const unsigned k = (seed = seed * 1103515245 + 12345) >> 16 & 15;
                uint64_t id;

                if (seed & 1) {
                        if (id_table_alloc(storm->table, &things[k], &id) == 0) {
                                id = atomic_exchange(&storm->shared[k], id);
                                if (id)
                                        g_assert_true(id_table_free(storm->table, id));
                        }
                } else {
                        /* What was put at k is things[k]: an id never resolves to another object.
                         */
                        void *object = id_table_get(storm->table, atomic_load(&storm->shared[k]));

                        g_assert_true(object == NULL || object == &things[k]);
                }
        }
        return NULL;
}

static void test_storm(void)
{
        struct storm storm = {.table = id_table_new(1, 1000)};
        pthread_t threads[8];

        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_create(&threads[i], NULL, storm_thread, &storm);
        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_join(threads[i], NULL);
        for (unsigned k = 0; k < 16; k++)
                if (storm.shared[k])
                        g_assert_true(id_table_free(storm.table, storm.shared[k]));
        g_assert_cmpuint(id_table_count(storm.table), ==, 0);
        id_table_unref(storm.table);
}

/*
 * An id that was guessed: the generation after the present one.  The slot goes from one generation
 * to the next all the time; objects of even generations are things[0], of odd ones things[1].
 */
struct guess {
        struct id_table *table;
        _Atomic uint64_t current;
        atomic_bool started, stop;
        unsigned wrong; /* of the guessing thread */
};

static void *guess_thread(void *data)
{
        struct guess *guess = data;

        atomic_store(&guess->started, true);
        while (!atomic_load(&guess->stop)) {
                const uint64_t id = atomic_load(&guess->current) + (UINT64_C(1) << 32);
                void *object = id_table_get(guess->table, id);

                if (object && object != &things[ID_GENERATION(id) & 1])
                        guess->wrong++;
        }
        return NULL;
}

static void test_guessed(void)
{
        struct guess guess = {.table = id_table_new(1, 1)};
        pthread_t thread;

        g_assert_cmpint(pthread_create(&thread, NULL, guess_thread, &guess), ==, 0);
        while (!atomic_load(&guess.started))
                ;
        for (unsigned i = 0; i < 2000000; i++) {
                uint64_t id;

                g_assert_cmpint(id_table_reserve(guess.table, &id), ==, 0);
                id_table_publish(guess.table, id, &things[ID_GENERATION(id) & 1]);
                atomic_store(&guess.current, id);
                g_assert_true(id_table_free(guess.table, id));
        }
        atomic_store(&guess.stop, true);
        pthread_join(thread, NULL);
        g_assert_cmpuint(guess.wrong, ==, 0);
        id_table_unref(guess.table);
}

/* A table that comes back with its word: what lived has its id, and no id is given out twice. */
static void test_restore(void)
{
        _Atomic uint64_t word = 0, check = UINT64_MAX;
        g_autoptr(GHashTable) given = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
        uint64_t living[100] = {0};

        for (unsigned life = 0; life < 30; life++) {
                g_autoptr(K42IdTable) table = id_table_new(3, 200);
                unsigned restored = 0;

                g_assert_true(id_table_keep(table, &word, &check));
                for (unsigned i = 100; i-- > 0;) { /* in any order */
                        if (!living[i])
                                continue;
                        g_assert_cmpint(id_table_restore(table, living[i], &things[i]), ==, 0);
                        g_assert_cmpint(id_table_restore(table, living[i], &things[i]), ==, -EEXIST);
                        restored++;
                }
                g_assert_cmpuint(id_table_count(table), ==, restored);
                for (unsigned i = 0; i < 100; i++)
                        if (living[i])
                                g_assert_true(id_table_get(table, living[i]) == &things[i]);
                for (unsigned n = 0; n < 2000; n++) {
                        const unsigned i = (unsigned)g_test_rand_int_range(0, 100);

                        if (living[i]) {
                                g_assert_true(id_table_free(table, living[i]));
                                g_assert_null(id_table_get(table, living[i]));
                                living[i] = 0;
                                continue;
                        }
                        g_assert_cmpint(id_table_alloc(table, &things[i], &living[i]), ==, 0);
                        g_assert_true(g_hash_table_add(given, g_memdup2(&living[i], 8)));
                        /* What is free below is used again: the table does not grow for ever. */
                        g_assert_cmpuint(ID_INDEX(living[i]), <, 103);
                }
                if (life % 3 == 0) { /* most of it lives no more; the word knows of it nevertheless */
                        for (unsigned i = 0; i < 90; i++) {
                                if (living[i])
                                        g_assert_true(id_table_free(table, living[i]));
                                living[i] = 0;
                        }
                }
        }
}

static void test_restore_refuses(void)
{
        _Atomic uint64_t word = 0, check = UINT64_MAX;
        struct id_table *table = id_table_new(3, 4);
        uint64_t ids[4], id;

        g_assert_true(id_table_keep(table, &word, &check));
        for (unsigned i = 0; i < 3; i++)
                g_assert_cmpint(id_table_alloc(table, &things[i], &ids[i]), ==, 0);
        id_table_unref(table);

        table = id_table_new(3, 4);
        g_assert_true(id_table_keep(table, &word, &check));
        g_assert_cmpint(id_table_restore(table, 0, &things[0]), ==, -EBADMSG);
        g_assert_cmpint(id_table_restore(table, UINT64_MAX, &things[0]), ==, -EBADMSG);
        g_assert_cmpint(id_table_restore(table, ID_MAKE(1, 2), &things[0]), ==, -EBADMSG);
        g_assert_cmpint(id_table_restore(table, ID_MAKE(0, 3), &things[0]), ==, -EBADMSG);
        g_assert_cmpint(id_table_restore(table, ID_MAKE(1, 6), &things[0]), ==, -EBADMSG);
        g_assert_cmpint(id_table_restore(table, ids[2], &things[2]), ==, 0);
        g_assert_true(id_table_free(table, ids[2])); /* before any hole was asked for */
        for (unsigned i = 0; i < 4; i++) {
                g_assert_cmpint(id_table_alloc(table, &things[i], &ids[i]), ==, 0);
                g_assert_cmpuint(ID_GENERATION(ids[i]), >, 1);
        }
        g_assert_cmpint(id_table_alloc(table, &things[0], &id), ==, -ENFILE);
        id_table_unref(table);

        /* The generations go round, and 0 is left out. */
        word = UINT64_C(4) << 32 | UINT32_MAX;
        check = ~word;
        table = id_table_new(3, 4);
        g_assert_true(id_table_keep(table, &word, &check));
        g_assert_cmpint(id_table_alloc(table, &things[0], &id), ==, 0);
        g_assert_cmpuint(id, ==, ID_MAKE(1, 3));
        id_table_unref(table);
}

/* A word that is damaged, whichever way, and one that a kill left a step ahead of its check. */
static void test_damaged_word(void)
{
        _Atomic uint64_t word = 0, check = UINT64_MAX;
        g_autoptr(GHashTable) given = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
        const uint64_t flips[] = {4, UINT64_C(1) << 31, UINT64_C(1) << 35, UINT64_MAX};

        for (unsigned life = 0; life < 200; life++) {
                g_autoptr(K42IdTable) table = id_table_new(3, 100);
                const bool damaged = life % 2 == 1;
                uint64_t id;

                if (life % 10 == 3)
                        word = check = 0; /* lost with its file */
                else if (damaged && life % 4 == 1)
                        word ^= flips[life / 4 % G_N_ELEMENTS(flips)];
                else if (damaged)
                        check ^= UINT64_C(1) << (g_test_rand_int_range(2, 32));
                g_assert_true(id_table_keep(table, &word, &check) == !damaged);
                for (unsigned n = 0; n < 50; n++) {
                        g_assert_cmpint(id_table_alloc(table, &things[0], &id), ==, 0);
                        g_assert_true(g_hash_table_add(given, g_memdup2(&id, 8)));
                }
        }
        {
                g_autoptr(K42IdTable) table = id_table_new(3, 100);

                word = UINT64_C(7) << 32 | 5;
                check = ~(UINT64_C(6) << 32 | 4);
                g_assert_true(id_table_keep(table, &word, &check));
                g_assert_cmpuint((uint32_t)word, ==, 6);
                g_assert_cmpuint(check, ==, ~word);
        }
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/id-table/stale-and-forged", test_stale_and_forged);
        g_test_add_func("/id-table/damaged-word", test_damaged_word);
        g_test_add_func("/id-table/limit-and-first", test_limit_and_first);
        g_test_add_func("/id-table/reserve", test_reserve);
        g_test_add_func("/id-table/ref-and-foreach", test_ref_and_foreach);
        g_test_add_func("/id-table/next", test_next);
        g_test_add_func("/id-table/restore", test_restore);
        g_test_add_func("/id-table/restore-refuses", test_restore_refuses);
        g_test_add_func("/id-table/text", test_text);
        g_test_add_func("/id-table/storm", test_storm);
        g_test_add_func("/id-table/guessed", test_guessed);
        return g_test_run();
}
