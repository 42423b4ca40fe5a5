/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * checker [--seed=N] [--seconds=N] [--actors=N] [--processes=N] DIRECTORY
 *
 * Works in DIRECTORY and knows the result of every system call that it makes.  Prints its seed, and ends
 * with 0 if everything was as it must be, else with 1 and lines that begin with WRONG.  It may be stopped
 * earlier by SIGTERM, which counts as the end of the time.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "actor.h"
#include "shared.h"

#define ACTORS_MAX 16

static volatile sig_atomic_t stopped;
static time_t end_time;

static void on_term(int sig)
{
        stopped = 1;
}

static bool is_over(void)
{
        return stopped || time(NULL) >= end_time || atomic_load(&actor_failed);
}

static void *act(void *data)
{
        struct actor *actor = data;

        while (!is_over()) {
                if (actor_random(actor) % 2)
                        actor_name_action(actor);
                else
                        actor_data_action(actor);
        }
        if (!atomic_load(&actor_failed))
                actor_check_tree(actor, actor->root);
        for (int i = 0; i < ACTOR_HELD; i++) {
                struct held *held = &actor->held[i];

                if (held->fd < 0)
                        continue;
                snprintf(actor->what, sizeof actor->what, "pread(held, all) at the end");
                if (!atomic_load(&actor_failed))
                        actor_check_content(actor, held->fd, held->node);
                close(held->fd);
                model_unref(held->node);
        }
        return NULL;
}

static int start_actor(struct actor *actor, int dir, unsigned number, uint64_t seed)
{
        char name[32];

        *actor = (struct actor){
                .number = number,
                .random = (seed + 1) * 0x9e3779b97f4a7c15 + number * 0x2545f4914f6cdd1d,
                .root = model_new(MODEL_DIR),
        };
        for (int i = 0; i < ACTOR_HELD; i++)
                actor->held[i].fd = -1;
        snprintf(name, sizeof name, "actor%u", number);
        if (mkdirat(dir, name, 0755) < 0)
                return -errno;
        actor->dir_fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return actor->dir_fd < 0 ? -errno : 0;
}

static int run_actors(int dir, unsigned n, uint64_t seed)
{
        struct actor actors[ACTORS_MAX];
        pthread_t threads[ACTORS_MAX];
        uint64_t calls = 0;

        for (unsigned i = 0; i < n; i++) {
                int r = start_actor(&actors[i], dir, i, seed);

                if (r < 0) {
                        fprintf(stderr, "WRONG: cannot start: %s\n", strerror(-r));
                        return -1;
                }
        }
        for (unsigned i = 0; i < n; i++)
                if (pthread_create(&threads[i], NULL, act, &actors[i]) != 0)
                        abort();
        for (unsigned i = 0; i < n; i++) {
                pthread_join(threads[i], NULL);
                calls += actors[i].calls;
                model_unref(actors[i].root);
                close(actors[i].dir_fd);
        }
        printf("actors: %llu calls\n", (unsigned long long)calls);
        return atomic_load(&actor_failed) ? -1 : 0;
}

static int end_processes(const pid_t *pids, unsigned n)
{
        int failed = 0;

        for (unsigned i = 0; i < n; i++)
                kill(pids[i], SIGTERM);
        for (unsigned i = 0; i < n; i++) {
                int status;

                while (waitpid(pids[i], &status, 0) < 0 && errno == EINTR)
                        ;
                if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
                        fprintf(stderr, "WRONG: process %u ended with %x\n", i, (unsigned)status);
                        failed = 1;
                }
        }
        return failed;
}

static unsigned long number_of(const char *text, unsigned long most)
{
        char *end;
        const unsigned long number = strtoul(text, &end, 10);

        if (*end || number > most) {
                fprintf(stderr, "checker: '%s' is no number up to %lu\n", text, most);
                exit(2);
        }
        return number;
}

int main(int argc, char **argv)
{
        static const struct option options[] = {
                {"seed", required_argument, NULL, 's'},
                {"seconds", required_argument, NULL, 't'},
                {"actors", required_argument, NULL, 'a'},
                {"processes", required_argument, NULL, 'p'},
                {0},
        };
        struct sigaction action = {.sa_handler = on_term, .sa_flags = SA_RESTART};
        unsigned long seed = (unsigned long)time(NULL), seconds = 5, actors = 3, processes = 2;
        pid_t pids[SHARED_MAX];
        int dir, c, failed;

        while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
                switch (c) {
                case 's': seed = number_of(optarg, ~0UL - 1); break;
                case 't': seconds = number_of(optarg, 86400); break;
                case 'a': actors = number_of(optarg, ACTORS_MAX); break;
                case 'p': processes = number_of(optarg, SHARED_MAX); break;
                default: return 2;
                }
        }
        if (optind + 1 != argc) {
                fprintf(stderr, "checker: needs DIRECTORY\n");
                return 2;
        }
        printf("seed %lu\n", seed);
        fflush(stdout);
        umask(0);
        dir = open(argv[optind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0 || shared_prepare(argv[optind]) < 0)
                return 1;
        for (unsigned i = 0; i < processes; i++) {
                pids[i] = fork();
                if (pids[i] == 0)
                        _exit(shared_process(argv[optind], i));
        }
        sigaction(SIGTERM, &action, NULL);
        end_time = time(NULL) + (time_t)seconds;
        failed = run_actors(dir, (unsigned)actors, seed) < 0;
        while (!is_over())
                sleep(1);
        failed |= end_processes(pids, (unsigned)processes);
        if (!failed && shared_check(argv[optind], (unsigned)processes) < 0)
                failed = 1;
        close(dir);
        return failed;
}
