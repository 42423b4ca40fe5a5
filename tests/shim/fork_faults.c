/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fork_faults: how many pages a fork costs the parent.
 *
 *   fork_faults [FILE]    FILE: is open meanwhile; prints the page faults of this process in FORKS forks
 *
 * Each page that it writes after a fork is copied, which costs more than anything else that a preloaded
 * library does there; the count is exact where times are not.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define FORKS 200

int main(int argc, char **argv)
{
        struct rusage before = {0}, after;

        if (argc > 1 && open(argv[1], O_RDONLY) < 0)
                return 1;
        for (int i = -3; i < FORKS; i++) { /* the first ones find out what is open */
                pid_t pid;

                if (i == 0)
                        getrusage(RUSAGE_SELF, &before);
                pid = fork();
                if (pid == 0)
                        _exit(0);
                if (waitpid(pid, NULL, 0) != pid)
                        return 1;
        }
        getrusage(RUSAGE_SELF, &after);
        printf("%ld\n", after.ru_minflt - before.ru_minflt);
        return 0;
}
