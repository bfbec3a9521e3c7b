/* SPDX-License-Identifier: MIT */
/* What the tests of the store share: a directory, content that can be told apart, and qemu-img. */
#ifndef TESTS_STORE_COMMON_H
#define TESTS_STORE_COMMON_H

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/api/common.h"

/* A new directory on the build's disk, removed with all in it by the next call and at exit. */
static char scratch_path[200];

TAP_MAYBE_UNUSED static void scratch_remove(void)
{
	char command[300];

	if (!scratch_path[0])
		return;
	snprintf(command, sizeof(command), "rm -rf '%s'", scratch_path);
	if (system(command) != 0) /* NOLINT(cert-env33-c): a command of our own */
		diag("%s stays behind", scratch_path);
	scratch_path[0] = '\0';
}

TAP_MAYBE_UNUSED static const char *scratch_in(const char *in)
{
	const char *root = getenv("BUILD_ROOT");
	static bool known;

	if (!known)
		atexit(scratch_remove);
	known = true;
	scratch_remove();
	if (in)
		root = in;
	snprintf(scratch_path, sizeof(scratch_path), "%s/store-XXXXXX", root ? root : ".");
	if (!mkdtemp(scratch_path))
		bail("no directory: %s", strerror(errno));
	return scratch_path;
}

TAP_MAYBE_UNUSED static const char *scratch(void)
{
	return scratch_in(NULL);
}

/* In memory, where there is such a directory: for tests of many saves, which would wait for the
 * disk most of the time. */
TAP_MAYBE_UNUSED static const char *quick_scratch(void)
{
	return scratch_in(access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : NULL);
}

TAP_MAYBE_UNUSED static struct cow_store *open_store(const char *path, uint32_t flags)
{
	struct cow_store *store = NULL;
	int r = cow_store_open(path, flags, &store);

	if (r < 0)
		bail("the store %s: %s", path, strerror(-r));
	return store;
}

/* The content of a page at a time: no two are alike, by their number or in time. */
TAP_MAYBE_UNUSED static void make_content(unsigned char content[PAGE], uint64_t page, uint64_t time)
{
	uint64_t x = page * 0x9e3779b97f4a7c15ull + time * 0xbf58476d1ce4e5b9ull + 1;

	for (size_t i = 0; i < PAGE / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(content + i * 8, &x, 8);
	}
}

TAP_MAYBE_UNUSED static void put(struct cow_region *region, uint64_t page, uint64_t time)
{
	unsigned char content[PAGE];
	int r;

	make_content(content, page, time);
	r = cow_region_write(region, page * PAGE, content, PAGE);
	if (r < 0)
		bail("a write: %s", strerror(-r));
}

TAP_MAYBE_UNUSED static int save(struct cow_store *store, struct cow_region *region,
				 const char *tag, char id[COW_ID_LENGTH])
{
	struct cow_save_options options = COW_SAVE_OPTIONS_INIT;
	struct cow_snapshot *snapshot = take(region);
	int r;

	options.tag = tag;
	r = cow_store_save(store, snapshot, &options, id);
	cow_snapshot_unref(snapshot);
	return r;
}

/* Runs a command with its output to the report when it fails; its exit status. */
TAP_PRINTF(1, 2)
static int run(const char *format, ...)
{
	char command[1024], full[1100], line[300], text[4096] = "";
	size_t used = 0;
	va_list arguments;
	FILE *output;
	int status;

	va_start(arguments, format);
	vsnprintf(command, sizeof(command), format, arguments);
	va_end(arguments);
	snprintf(full, sizeof(full), "{ %s; } 2>&1", command);
	output = popen(full, "r"); /* NOLINT(cert-env33-c): likewise */
	if (!output)
		bail("popen: %s", strerror(errno));
	while (used + 1 < sizeof(text) && fgets(text + used, (int)(sizeof(text) - used), output))
		used += strlen(text + used);
	while (fgets(line, sizeof(line), output))
		; /* what there is no room for */
	status = pclose(output);
	if (status != 0)
		diag("%s: status %d\n%s", command, WEXITSTATUS(status), text);
	return WEXITSTATUS(status);
}

TAP_MAYBE_UNUSED static bool have_qemu_img(void)
{
	return run("qemu-img --version") == 0;
}

/* Every layer, by qemu-img check. */
TAP_MAYBE_UNUSED static void check_layers(const char *directory)
{
	is_int(run("for f in '%s'/*.qcow2; do qemu-img check -q \"$f\" || exit 1; done", directory),
	       0, "qemu-img check finds nothing");
}

/* Whether a layer reads as a raw file does, to qemu-img. */
TAP_MAYBE_UNUSED static bool reads_as(const char *directory, const char *id, const char *raw)
{
	struct stat status;

	if (stat(raw, &status) < 0)
		bail("%s: %s", raw, strerror(errno));
	return run("qemu-img convert -O raw '%s/%s.qcow2' '%s.converted' && "
		   "cmp -n %lld '%s.converted' '%s' && rm '%s.converted'",
		   directory, id, raw, (long long)status.st_size, raw, raw, raw) == 0;
}

TAP_MAYBE_UNUSED static off_t file_bytes(const char *directory, const char *id)
{
	char path[300];
	struct stat status;

	snprintf(path, sizeof(path), "%s/%s.qcow2", directory, id);
	return stat(path, &status) < 0 ? -1 : status.st_blocks * 512;
}

/* The live region, to a file. */
TAP_MAYBE_UNUSED static void dump(struct cow_region *region, const char *path)
{
	FILE *file = fopen(path, "wb");
	unsigned char content[PAGE];

	if (!file)
		bail("%s: %s", path, strerror(errno));
	for (size_t at = 0; at < cow_region_get_length(region); at += PAGE) {
		if (cow_region_read(region, at, content, PAGE) < 0 ||
		    fwrite(content, PAGE, 1, file) != 1)
			bail("%s: cannot be written", path);
	}
	fclose(file);
}

#endif
