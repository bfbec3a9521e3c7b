/* SPDX-License-Identifier: MIT */
/* ps-compare PID..., ascending: ends with 0 when cow ps and the kernel agree about them. */
#include "tests/cli/ps-compare.h"

int main(int argc, char **argv)
{
	pid_t *pids = calloc((size_t)argc, sizeof(*pids));
	struct ps_result result = { 0 };
	int i, status;

	for (i = 1; pids && i < argc; i++)
		pids[i - 1] = (pid_t)atoi(argv[i]);
	status = pids && argc > 1 ? compare_with_kernel(pids, (size_t)argc - 1, &result) : -EINVAL;
	if (status < 0)
		fprintf(stderr, "ps-compare: %s\n", strerror(-status));
	ps_result_free(&result);
	free(pids);
	return status < 0 ? 2 : status;
}
