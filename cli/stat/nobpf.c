/* SPDX-License-Identifier: MIT */
/* In place of bpf.c where the build has no BPF. */
#include <errno.h>

#include "cli/stat/bpf.h"

int bpf_source_start(struct session *session)
{
	return -EOPNOTSUPP;
}

void bpf_source_read(struct session *session)
{
}

void bpf_source_drain(struct session *session)
{
}

void bpf_source_free(struct bpf_source *source)
{
}
