/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parts of k42bench share.  See main.c for what it is. */
#pragma once

#include <stddef.h>

/* One measurement: `argv` are the arguments behind its name.  Returns the exit status. */
typedef int (*measurement)(int argc, char **argv);

/* meta.c: system calls on names. */
int measure_stat(int argc, char **argv);
int measure_open(int argc, char **argv);
int measure_create(int argc, char **argv);
int measure_rename(int argc, char **argv);
int measure_readdir(int argc, char **argv);

/* process.c: fork, exec, and what the shim costs. */
int measure_fork(int argc, char **argv);
int measure_read(int argc, char **argv);
int measure_child_read(int argc, char **argv);
int measure_start(int argc, char **argv);

/* Seconds, from a clock that nobody sets. */
double now(void);

/* The number in `text`, from 1 on; anything else ends the program with a usage error. */
unsigned parse_count(const char *text);

/* The name of the i-th file of a set: DIR/fNNNNNN. */
void set_name(char *name, size_t size, const char *dir, unsigned i);

/* Prints `what PATH: strerror` and ends the program: a figure from half a run is worth nothing. */
_Noreturn void give_up(const char *what, const char *path);

/*
 * Does `op` for 0 … n-1 and returns microseconds a call: the time is taken of batches of a few calls,
 * and the answer is their lower quartile.  A batch is shorter than a time slice, so what else the
 * machine does meanwhile lengthens some batches and leaves the others as they are.
 */
double time_batches(unsigned n, void (*op)(const void *data, unsigned i), const void *data);

/* The median of n values; sorts them. */
double median(double *values, size_t n);

/* One figure of the answer. */
void put_figure(const char *name, double value);
