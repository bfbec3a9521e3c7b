/* SPDX-License-Identifier: MIT */
/* The backend on BPF programs, user part; bpf/stat.bpf.c says what is counted and how. */
#ifndef CLI_STAT_BPF_H
#define CLI_STAT_BPF_H

#include "cli/stat/stat.h"

/*
 * Starts to count for the session. Returns 0 or a negative errno: -EOPNOTSUPP where this build has
 * no BPF, -EPERM without privilege, others where the kernel refuses the programs.
 */
int bpf_source_start(struct session *session);

/* Brings the session's processes and its distribution of fork times up to date. */
void bpf_source_read(struct session *session);

/* Takes what waits in buffers, before they are full. */
void bpf_source_drain(struct session *session);

void bpf_source_free(struct bpf_source *source);

#endif
