/* SPDX-License-Identifier: MIT */
/*
 * The store's readers over bytes that nobody wrote. The first byte says what the rest is:
 *
 *	'l'  the file of a layer, as it is
 *	'L'  the same, with its identity and all checksums put right first: what lies behind them
 *	'h'  the file HEAD; 'H' with its checksum put right
 *	'i'  an image to import (qcow2, or whatever else)
 *
 * Everything that reads is called. A call that fails says so by one of the errnos that are
 * documented; nothing crashes, reads past its buffers, or runs for long. (Verification is of bytes
 * against checksums: who forges these can make a layer that verifies and cannot be restored.)
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cow.h"
#include "store/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ID       "01234567-89ab-4cde-8f01-23456789abcd"
#define STORE_ID "76543210-89ab-4cde-8f01-23456789abcd"

static char directory[64], into[80], image[80], exported[80];

static void remove_all(void)
{
	char command[400];

	snprintf(command, sizeof(command), "rm -rf '%s' '%s' '%s' '%s'", directory, into, image,
		 exported);
	if (system(command) != 0)
		perror(command);
}

static void set_up(void)
{
	if (directory[0])
		return;
	snprintf(directory, sizeof(directory), "%s/cow-fuzz-XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	assert(mkdtemp(directory));
	snprintf(into, sizeof(into), "%s.into", directory);
	snprintf(image, sizeof(image), "%s.image", directory);
	snprintf(exported, sizeof(exported), "%s.raw", directory);
	atexit(remove_all);
}

static void write_file(const char *path, const void *bytes, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
	close(fd);
}

static void write_in(const char *name, const void *bytes, size_t length)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	write_file(path, bytes, length);
}

static void write_head(const char *text, size_t length, bool put_right)
{
	char *bytes = malloc(length + 64);

	assert(bytes);
	memcpy(bytes, text, length);
	if (put_right)
		length += (size_t)snprintf(bytes + length, 64, "crc32c %08x\n",
					   crc32c(bytes, length));
	write_in("HEAD", bytes, length);
	free(bytes);
}

/* --- putting checksums right --- */

enum { FOOTER_ID_AT = 16, FOOTER_CRC_AT = CLUSTER - 4, FOOTER_NUMBERS_AT = 48, NUMBERS = 15 };

/* As writer.c leaves a file: an array of checksums behind crc_count clusters, then the footer. */
static void mend(unsigned char *bytes, size_t length)
{
	unsigned char *footer = bytes + length - CLUSTER, *array;
	struct layer_id id;
	uint64_t count;

	if (length < 2 * CLUSTER)
		return;
	assert(id_parse(ID, &id));
	memcpy(footer, "COWLAYER", 8);
	put_be32(footer + 8, 1);
	memcpy(footer + FOOTER_ID_AT, id.bytes, ID_BYTES);
	count = get_be64(footer + FOOTER_NUMBERS_AT + (NUMBERS - 1) * 8);
	if (count < length / CLUSTER) {
		array = bytes + count * CLUSTER;
		for (uint64_t i = 0; i < count && array + i * 4 + 4 <= footer; i++)
			put_be32(array + i * 4, crc32c(bytes + i * CLUSTER, CLUSTER));
		put_be32(footer + FOOTER_NUMBERS_AT + NUMBERS * 8,
			 crc32c(array, (size_t)(footer - array)));
	}
	put_be32(footer + FOOTER_CRC_AT, crc32c(footer, FOOTER_CRC_AT));
}

static void write_layer(const uint8_t *data, size_t size, bool put_right)
{
	size_t length = (size + CLUSTER - 1) / CLUSTER * CLUSTER;
	unsigned char *bytes = calloc(1, length + 1);

	assert(bytes);
	memcpy(bytes, data, size);
	if (put_right && length > 0)
		mend(bytes, length);
	write_in(ID ".qcow2", bytes, put_right ? length : size);
	free(bytes);
}

/* --- reading --- */

static int check(int r)
{
	switch (r) {
	case 0:
	case -ENOENT:
	case -EUCLEAN:
	case -ELOOP:
	case -E2BIG:
	case -EOPNOTSUPP:
	case -EINVAL:
	case -ENOMEM:
	case -EIO:
	case -EFBIG:
	case -EBUSY:
	case -EEXIST:
		return r;
	default:
		fprintf(stderr, "%s\n", strerror(-r));
		abort();
	}
}

static int count_layer(const struct cow_layer_info *info, void *context)
{
	assert(strlen(info->id) == COW_ID_LENGTH - 1 && info->size > 0);
	++*(unsigned *)context;
	return 0;
}

static int count_tag(const char *tag, const char *id, void *context)
{
	assert(tag[0] && strlen(id) == COW_ID_LENGTH - 1);
	++*(unsigned *)context;
	return 0;
}

static int count_damage(const char *id, uint64_t offset, uint64_t length, const char *what,
			void *context)
{
	(void)id;
	(void)offset;
	(void)length;
	assert(what && what[0]);
	return ++*(unsigned *)context > 100;
}

static int count_range(size_t offset, size_t length, void *context)
{
	(void)offset;
	(void)context;
	assert(length > 0);
	return 0;
}

static sigjmp_buf unreadable;

static void on_bus(int number)
{
	(void)number;
	siglongjmp(unreadable, 1);
}

/* Its ends, and some of the middle, past the library, which one cannot jump out of. false: a
 * page that cannot be had, which raises SIGBUS. */
static bool read_region(struct cow_region *region)
{
	struct sigaction bus = { .sa_handler = on_bus }, before;
	static unsigned char buffer[1 << 20];
	const unsigned char *base = cow_region_get_base(region);
	size_t length = cow_region_get_length(region);
	size_t some = length < sizeof(buffer) ? length : sizeof(buffer);
	volatile bool good = false;

	sigaction(SIGBUS, &bus, &before);
	if (sigsetjmp(unreadable, 1) == 0) {
		memcpy(buffer, base, some);
		memcpy(buffer, base + length - some, some);
		memcpy(buffer, base + length / 2, some / 2);
		good = true;
	}
	sigaction(SIGBUS, &before, NULL);
	return good;
}

static void restore(struct cow_store *store, enum cow_verify verify)
{
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_region *region;
	int r;

	options.trap = COW_TRAP_EXPLICIT;
	options.verify = verify;
	r = check(cow_store_restore(store, ID, &options, &region));
	if (r == 0) {
		/* What was looked at before stays good. */
		if (!read_region(region))
			assert(verify != COW_VERIFY_EAGER);
		cow_region_free(region);
	}
}

static void read_store(void)
{
	struct cow_layer_info info = COW_LAYER_INFO_INIT;
	unsigned count = 0, damages = 0;
	struct cow_store *store;
	char state[100];
	ssize_t length;
	bool good;

	if (check(cow_store_open(directory, COW_STORE_READ_ONLY, &store)) < 0)
		return;
	check(cow_store_list(store, count_layer, &count));
	check(cow_store_list_tags(store, count_tag, &count));
	check(cow_store_get_info(store, ID, &info));
	length = cow_store_get_state(store, ID, state, sizeof(state));
	check(length > 0 ? 0 : (int)length);
	/* Large ones would only take long. */
	if (info.length <= 64u << 20) {
		good = check(cow_store_verify(store, ID, count_damage, NULL, &damages)) == 0;
		assert(!good || damages == 0);
		check(cow_store_diff(store, ID, ID, count_range, NULL));
		unlink(exported);
		check(cow_store_export(store, ID, exported, NULL, NULL));
		restore(store, COW_VERIFY_NONE);
		restore(store, COW_VERIFY_EAGER);
	}
	cow_store_close(store);
}

static void import(void)
{
	struct cow_import_options options = COW_IMPORT_OPTIONS_INIT;
	struct cow_store *store;
	char id[COW_ID_LENGTH];
	int r;

	assert(cow_store_open(into, COW_STORE_CREATE, &store) == 0);
	options.format = "qcow2";
	r = cow_store_import(store, image, &options, id);
	if (r != -ENOSYS && check(r) == 0) {
		assert(cow_store_verify(store, id, NULL, NULL, NULL) == 0);
		assert(cow_store_untag(store, "none") == -ENOENT);
	}
	cow_store_close(store);
	if (r == 0) { /* begin anew: HEAD cannot be deleted */
		char command[200];

		snprintf(command, sizeof(command), "rm -rf '%s'", into);
		assert(system(command) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char head[] = "cow-store 1 " STORE_ID
				   "\nsequence 18446744073709551615\nhead " ID "\ntag t " ID "\n";

	if (size < 1 || size > (1u << 20))
		return 0;
	set_up();
	switch (data[0]) {
	case 'l':
	case 'L':
		write_head(head, strlen(head), true);
		write_layer(data + 1, size - 1, data[0] == 'L');
		read_store();
		break;
	case 'h':
	case 'H':
		write_head((const char *)data + 1, size - 1, data[0] == 'H');
		read_store();
		break;
	case 'i':
		write_file(image, data + 1, size - 1);
		import();
		break;
	}
	return 0;
}
