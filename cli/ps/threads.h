/* SPDX-License-Identifier: MIT */
/* Sharing work out to threads: they take pieces of it from an atomic counter in the context. */
#ifndef CLI_PS_THREADS_H
#define CLI_PS_THREADS_H

/*
 * Runs `part` on so many threads and returns when all are done. The caller is one of them, so that
 * none needs to be had.
 */
void run_on_threads(unsigned int count, void *(*part)(void *context), void *context);

/* As many as may run at a time. */
unsigned int threads_available(void);

#endif
