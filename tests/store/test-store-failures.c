/* SPDX-License-Identifier: MIT */
/*
 * Failures that the random workload of test-store-inject does not come by: in imports, in opening
 * a new store, in tidying up after a failure; and what people do to HEAD.
 */
#include "store/io.h"
#include "store/store.h"
#include "sys/sys.h"
#include "tests/resources.h"
#include "tests/store/common.h"

/* --- the n-th call fails --- */

static struct {
	bool only_sync;
	unsigned made, fail;
} plan;

static int inject(enum sys_call call)
{
	if (call == SYS_CALL_UNMAP || (plan.only_sync && call != SYS_CALL_SYNC))
		return 0;
	return ++plan.made == plan.fail ? -EIO : 0;
}

static void fail_call(unsigned n)
{
	plan.only_sync = false;
	plan.made = 0;
	plan.fail = n;
	sys_injector = inject;
}

static void fail_sync(unsigned n)
{
	fail_call(n);
	plan.only_sync = true;
}

static void fail_nothing(void)
{
	sys_injector = NULL;
	io_table = &io_system;
}

/* --- what is there --- */

static unsigned count_files(const char *end)
{
	DIR *directory = opendir(scratch_path);
	struct dirent *entry;
	unsigned count = 0;

	while (directory && (entry = readdir(directory))) {
		size_t length = strlen(entry->d_name), tail = strlen(end);

		count += length > tail && strcmp(entry->d_name + length - tail, end) == 0;
	}
	if (directory)
		closedir(directory);
	return count;
}

static int count_layer(const struct cow_layer_info *info, void *context)
{
	++*(unsigned *)context;
	return 0;
}

static unsigned count_layers(struct cow_store *store)
{
	unsigned count = 0;

	is_errno(cow_store_list(store, count_layer, &count), 0, "the list");
	return count;
}

static void save_layers(struct cow_store *store, struct cow_region *region, unsigned count)
{
	static uint64_t time;

	for (unsigned i = 0; i < count; i++) {
		put(region, i % 10, ++time);
		is_errno(save(store, region, NULL, NULL), 0, "a layer");
	}
}

/* --- cases --- */

static void make_image(const char *path)
{
	unsigned char content[PAGE];
	FILE *file = fopen(path, "wb");

	if (!file)
		bail("%s: %s", path, strerror(errno));
	for (uint64_t page = 0; page < 600; page++) {
		make_content(content, page, 1);
		fwrite(content, PAGE, 1, file);
	}
	fclose(file);
}

/* Whether the call was reached. */
static bool import_failing_at(unsigned n)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	unsigned files = open_files();
	char image[300];
	int r;

	snprintf(image, sizeof(image), "%s/image", scratch_path);
	make_image(image);
	fail_call(n);
	r = cow_store_import(store, image, NULL, NULL);
	fail_nothing();
	is_u64(open_files(), files, "descriptors, at call %u", n);
	is_u64(count_files(".new"), 0, "unfinished files, at call %u", n);
	is_u64(count_files(".qcow2"), count_layers(store), "files of layers, at call %u", n);
	if (r < 0 && count_layers(store) == 0)
		is_errno(cow_store_import(store, image, NULL, NULL), 0, "again, at call %u", n);
	is_u64(count_layers(store), 1, "layers in the end, at call %u", n);
	cow_store_close(store);
	return plan.made >= n;
}

/* What was a hole when room was planned for the layer has data when it is written. */
static int write_more(uint64_t done, uint64_t total, void *context)
{
	unsigned char content[PAGE];

	make_content(content, 1, 2);
	for (uint64_t slice = 1; slice < 40; slice++)
		if (pwrite(*(int *)context, content, PAGE, (off_t)(slice << 21)) != (ssize_t)PAGE)
			bail("the image: %s", strerror(errno));
	return 0;
}

TEST(an_image_that_changes_while_it_is_imported_is_refused)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_import_options options = COW_IMPORT_OPTIONS_INIT;
	char image[300];
	int fd;

	snprintf(image, sizeof(image), "%s/image", scratch_path);
	make_image(image);
	fd = open(image, O_RDWR | O_CLOEXEC);
	ok(fd >= 0 && ftruncate(fd, 100 << 20) == 0, "holes at its end");
	options.progress = write_more;
	options.context = &fd;
	cow_log_set(note_message, NULL);
	is_errno(cow_store_import(store, image, &options, NULL), -EBUSY, "it is refused");
	ok(strstr(logged.last, "image: it is being changed") != NULL, "the log says so: %s",
	   logged.last);
	cow_log_set(NULL, NULL);
	is_u64(count_files(".qcow2") + count_files(".new"), 0, "files");
	is_errno(cow_store_import(store, image, NULL, NULL), 0, "at rest it is imported");
	close(fd);
	cow_store_close(store);
}

/* Opening one to be read waits for somebody who writes. */
TEST(a_pipe_is_no_image)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	char image[300];

	snprintf(image, sizeof(image), "%s/image", scratch_path);
	is_int(mkfifo(image, 0600), 0, "a pipe");
	cow_log_set(note_message, NULL);
	is_errno(cow_store_import(store, image, NULL, NULL), -EINVAL, "it is refused");
	ok(strstr(logged.last, "image: it is no regular file") != NULL, "the log says so: %s",
	   logged.last);
	cow_log_set(NULL, NULL);
	cow_store_close(store);
}

TEST(an_import_that_fails_leaves_nothing)
{
	unsigned n = 1;

	while (import_failing_at(n) && tap.failed < 10)
		n++;
	ok(n > 20, "%u calls", n);
}

static int refuse_directory(int directory)
{
	return -EIO;
}

static int refuse_name(int directory, const char *name)
{
	return -EIO;
}

/* What is left has the number that the next save gets, and would be a layer with that. */
TEST(a_save_that_cannot_be_taken_back_never_becomes_a_layer)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_region *region = new_region(10);
	struct io_ops table = io_system;

	table.sync_dir = refuse_directory;
	table.unlink = refuse_name;
	save_layers(store, region, 1);
	put(region, 2, 77);
	io_table = &table;
	is_errno(save(store, region, NULL, NULL), -EIO, "a save fails");
	fail_nothing();
	is_u64(count_files(".qcow2"), 2, "and leaves a whole layer");
	is_u64(count_layers(store), 1, "layers");
	save_layers(store, region, 1);
	is_u64(count_layers(store), 2, "layers, with the next save");
	is_u64(count_files(".qcow2"), 2, "files");
	cow_region_free(region);
	cow_store_close(store);
}

static int refuse_rename(int directory, const char *from, const char *to)
{
	return strcmp(to, "HEAD") == 0 ? -EIO : io_system.rename(directory, from, to);
}

static struct io_ops no_more_heads;

/* The layer's file is gone, HEAD cannot be told. */
static int unlink_and_refuse(int directory, const char *name)
{
	no_more_heads.rename = refuse_rename;
	return io_system.unlink(directory, name);
}

TEST(layers_that_are_gone_are_forgotten)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_region *region = new_region(10);
	char id[COW_ID_LENGTH];

	save_layers(store, region, 1);
	is_errno(save(store, region, "base", NULL), 0, "a tag");
	put(region, 3, 78);
	is_errno(save(store, region, NULL, id), 0, "a layer to be given up");
	no_more_heads = io_system;
	no_more_heads.unlink = unlink_and_refuse;
	io_table = &no_more_heads;
	is_errno(cow_store_delete(store, id), 0, "it is deleted");
	fail_nothing();
	is_int(run("grep -q '^deleted' '%s/HEAD'", scratch_path), 0, "HEAD still says so");
	is_u64(count_files(".qcow2"), 2, "files");
	is_errno(cow_store_compact(store, NULL, NULL), 0, "compacted");
	is_int(run("! grep '^deleted' '%s/HEAD'", scratch_path), 0, "it is forgotten");
	cow_region_free(region);
	cow_store_close(store);
}

/* Its own entry, its files and their names: each is on the disk, or the store is not there yet. */
TEST(a_new_store_is_on_the_disk)
{
	const char *parent = quick_scratch();
	char path[300];
	unsigned n = 1;

	snprintf(path, sizeof(path), "%s/store", parent);
	do {
		struct cow_store *store = NULL;
		int r;

		run("rm -rf '%s'", path);
		fail_sync(n);
		r = cow_store_open(path, COW_STORE_CREATE, &store);
		fail_nothing();
		if (plan.made < n)
			is_errno(r, 0, "nothing fails");
		else
			is_errno(r, -EIO, "sync %u fails", n);
		cow_store_close(store);
		is_errno(cow_store_open(path, COW_STORE_CREATE, &store), 0, "and again");
		cow_store_close(store);
	} while (plan.made >= n++ && n < 10);
	is_u64(n - 2, 3, "syncs: the parent directory, HEAD, the directory");
}

/* Each layer of a chain takes one. */
TEST(a_chain_of_more_layers_than_descriptors)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_region *region = new_region(10), *restored = NULL;
	struct rlimit limit, few;

	save_layers(store, region, 100);
	getrlimit(RLIMIT_NOFILE, &limit);
	few = (struct rlimit){ .rlim_cur = 64, .rlim_max = limit.rlim_max };
	setrlimit(RLIMIT_NOFILE, &few);
	options.trap = TEST_TRAP;
	cow_log_set(note_message, NULL);
	is_errno(cow_store_restore(store, NULL, &options, &restored), -EMFILE, "not restored");
	ok(strstr(logged.last, "compact the store") != NULL, "the log says what to do: %s",
	   logged.last);
	cow_log_set(NULL, NULL);
	is_errno(cow_store_compact(store, NULL, NULL), 0, "it can be compacted");
	is_errno(cow_store_restore(store, NULL, &options, &restored), 0, "then it is restored");
	cow_region_free(restored);
	setrlimit(RLIMIT_NOFILE, &limit);
	cow_region_free(region);
	cow_store_close(store);
}

/* No program gets there by saving; a file that somebody made does at once. */
TEST(numbers_that_are_used_up)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_region *region = new_region(10);

	save_layers(store, region, 1);
	store->refs.sequence = SEQUENCE_MAX - 1;
	save_layers(store, region, 1);
	put(region, 3, 80);
	is_errno(save(store, region, NULL, NULL), -EOVERFLOW, "no save after the last number");
	is_errno(cow_store_verify(store, NULL, NULL, NULL, NULL), 0, "verified");
	is_u64(count_layers(store), 2, "layers");
	cow_region_free(region);
	cow_store_close(store);
}

/* As the log says, where there is no copy. */
TEST(without_head_the_newest_layer_is_imported)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE), *other;
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_region *region = new_region(10), *restored = NULL;
	char id[COW_ID_LENGTH], newest[300], path[300];

	save_layers(store, region, 3);
	put(region, 5, 79);
	is_errno(save(store, region, NULL, id), 0, "the newest");
	cow_store_close(store);
	is_int(run("rm '%s/HEAD'", scratch_path), 0, "HEAD is lost");
	cow_log_set(note_message, NULL);
	is_errno(cow_store_open(scratch_path, COW_STORE_CREATE, &other), -EUCLEAN, "not opened");
	ok(strstr(logged.last, "import the newest layer") != NULL, "the log says what to do: %s",
	   logged.last);
	cow_log_set(NULL, NULL);
	snprintf(newest, sizeof(newest), "%s/%s.qcow2", scratch_path, id);
	snprintf(path, sizeof(path), "%s/new", scratch_path);
	other = open_store(path, COW_STORE_CREATE);
	is_errno(cow_store_import(other, newest, NULL, NULL), 0, "imported");
	options.trap = TEST_TRAP;
	is_errno(cow_store_restore(other, NULL, &options, &restored), 0, "restored");
	ok(restored && memcmp(page_of(restored, 0), page_of(region, 0), 10 * PAGE) == 0,
	   "everything is there");
	cow_region_free(restored);
	cow_region_free(region);
	cow_store_close(other);
}

/* As the log says where HEAD is damaged. What was saved since is not taken for what an interrupted
 * save has left. */
TEST(an_old_copy_of_head_loses_nothing)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_region *region = new_region(10);

	save_layers(store, region, 2);
	is_int(run("cp '%s/HEAD' '%s/copy'", scratch_path, scratch_path), 0, "a copy of HEAD");
	save_layers(store, region, 3);
	cow_store_close(store);
	is_int(run("mv '%s/copy' '%s/HEAD'", scratch_path, scratch_path), 0, "is put back");
	cow_log_set(note_message, NULL);
	store = open_store(scratch_path, 0);
	save_layers(store, region, 1);
	ok(strstr(logged.last, "HEAD: older than") != NULL, "the log says so: %s", logged.last);
	is_u64(count_layers(store), 6, "layers");
	is_errno(cow_store_compact(store, NULL, NULL), 0, "compacted");
	is_u64(count_layers(store), 6, "layers");
	is_errno(cow_store_verify(store, NULL, NULL, NULL, NULL), 0, "verified");
	cow_log_set(NULL, NULL);
	cow_region_free(region);
	cow_store_close(store);
}

TAP_MAIN(CASE(an_import_that_fails_leaves_nothing),
	 CASE(an_image_that_changes_while_it_is_imported_is_refused), CASE(a_pipe_is_no_image),
	 CASE(a_save_that_cannot_be_taken_back_never_becomes_a_layer),
	 CASE(layers_that_are_gone_are_forgotten), CASE(a_chain_of_more_layers_than_descriptors),
	 CASE(a_new_store_is_on_the_disk), CASE(numbers_that_are_used_up),
	 CASE(without_head_the_newest_layer_is_imported), CASE(an_old_copy_of_head_loses_nothing))
