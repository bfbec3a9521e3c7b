/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz harness over the files of its corpus, without libFuzzer, so that every input that
 * was ever interesting is an ordinary test in every build: standalone DIRECTORY. A file is a TAP
 * case; one that crashes the harness ends the process before its line, which names it.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef NDEBUG
#error "the harnesses need assert()"
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data = NULL;
	size_t size = 0, n;

	if (!file)
		return -1;
	do {
		data = realloc(data, size + 65536);
		if (!data)
			abort();
		n = fread(data + size, 1, 65536, file);
		size += n;
	} while (n > 0);
	fclose(file);
	/* A copy of the exact size: a sanitizer then sees a read past its end. */
	data = realloc(data, size ? size : 1);
	if (!data)
		abort();
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 0;
}

static int is_input(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

int main(int argc, char **argv)
{
	struct dirent **entries;
	char path[4096];
	int count, i, failed = 0;

	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	count = argc == 2 ? scandir(argv[1], &entries, is_input, alphasort) : -1;
	if (count <= 0) {
		fprintf(stderr, "usage: %s DIRECTORY (with at least one file)\n", argv[0]);
		return 2;
	}
	printf("1..%d\n", count);
	for (i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/%s", argv[1], entries[i]->d_name);
		printf("# %s\n", path);
		if (run_file(path) < 0)
			failed++;
		printf("%s %d - %s\n", failed ? "not ok" : "ok", i + 1, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return failed ? 1 : 0;
}
