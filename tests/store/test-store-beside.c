/* SPDX-License-Identifier: MIT */
/*
 * A reader beside a writer that tidies up: at any moment.
 *
 * Each call of a reader is made again and again, and each time the writer does what it does at
 * once (merges layers, cuts chains, gives HEAD up) just before another one of the files that the
 * call opens is opened. The reader gets what was there before or what is there after: no error, no
 * word of damage, no layer that is missing.
 */
#include "store/io.h"
#include "store/layer.h"
#include "store/packer.h"
#include "store/rewrite.h"
#include "tests/store/common.h"

enum { LAYERS = 6, PAGES = 600 };

static struct {
	struct cow_store *writer, *reader;
	struct cow_region *region; /* as the newest layer */
	char ids[LAYERS][COW_ID_LENGTH];
} beside;

/* Page i has another content in each layer from the i-th on. */
static void set_up(void)
{
	beside.writer = open_store(quick_scratch(), COW_STORE_CREATE);
	beside.region = new_region(PAGES);
	for (unsigned i = 0; i < LAYERS; i++) {
		for (uint64_t page = i; page < PAGES; page += 7)
			put(beside.region, page, 1 + i);
		is_errno(save(beside.writer, beside.region, NULL, beside.ids[i]), 0, "layer %u", i);
	}
	for (unsigned i = 1; i < 4; i++)
		is_errno(cow_store_delete(beside.writer, beside.ids[i]), 0, "%u is given up", i);
	beside.reader = open_store(scratch_path, COW_STORE_READ_ONLY);
}

static void tear_down(void)
{
	cow_store_close(beside.reader);
	cow_region_free(beside.region);
	cow_store_close(beside.writer);
}

/* --- what the writer does meanwhile --- */

static int merge(void)
{
	return cow_store_compact(beside.writer, NULL, NULL);
}

static int cut_chains(void)
{
	struct cow_compact_options options = COW_COMPACT_OPTIONS_INIT;

	options.depth_max = 1;
	return cow_store_compact(beside.writer, &options, NULL);
}

static int compress(void)
{
	struct cow_compact_options options = COW_COMPACT_OPTIONS_INIT;

	rewrite_pack_from = 1; /* however small */
	options.flags = COW_COMPACT_COMPRESS;
	return cow_store_compact(beside.writer, &options, NULL);
}

static int give_up_head(void)
{
	return cow_store_delete(beside.writer, NULL);
}

/* Only the newest layer is kept: what was HEAD is gone. */
static int replace_head(void)
{
	int r = save(beside.writer, beside.region, NULL, NULL);

	for (unsigned i = 0; r == 0 && i < LAYERS; i++)
		if (i < 1 || i > 3)
			r = cow_store_delete(beside.writer, beside.ids[i]);
	return r < 0 ? r : cow_store_compact(beside.writer, NULL, NULL);
}

/* --- what the reader asks for --- */

static int verify(void)
{
	return cow_store_verify(beside.reader, NULL, NULL, NULL, NULL);
}

static int verify_layer(void)
{
	return cow_store_verify(beside.reader, beside.ids[LAYERS - 2], NULL, NULL, NULL);
}

static int is_damaged(const struct cow_layer_info *info, void *context)
{
	return info->flags & COW_LAYER_DAMAGED ? 1 : 0;
}

static int list(void)
{
	return cow_store_list(beside.reader, is_damaged, NULL);
}

static int describe(void)
{
	struct cow_layer_info info = COW_LAYER_INFO_INIT;

	return cow_store_get_info(beside.reader, NULL, &info);
}

static int read_state(void)
{
	char state[10];

	return (int)cow_store_get_state(beside.reader, NULL, state, sizeof(state));
}

static int is_content(const unsigned char *bytes, uint64_t page, unsigned layer)
{
	unsigned char content[PAGE];
	uint64_t newest = 0;

	for (unsigned i = 0; i <= layer; i++)
		if (page >= i && (page - i) % 7 == 0)
			newest = 1 + i;
	if (newest == 0)
		memset(content, 0, sizeof(content));
	else
		make_content(content, page, newest);
	return memcmp(bytes, content, PAGE) == 0;
}

/* HEAD, or what is HEAD once that was given up. */
static int restore(void)
{
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_region *region = NULL;
	int r;

	options.trap = TEST_TRAP;
	r = cow_store_restore(beside.reader, NULL, &options, &region);
	for (uint64_t page = 0; r == 0 && page < PAGES; page++)
		if (!is_content(page_of(region, page), page, LAYERS - 1) &&
		    !is_content(page_of(region, page), page, LAYERS - 2))
			r = -EILSEQ;
	cow_region_free(region);
	return r;
}

static int export(void)
{
	char path[300];
	int r;

	snprintf(path, sizeof(path), "%s/exported", scratch_path);
	r = cow_store_export(beside.reader, NULL, path, NULL, NULL);
	unlink(path);
	return r;
}

static int count_range(uint64_t offset, uint64_t length, void *context)
{
	return 0;
}

static int compare(void)
{
	return cow_store_diff(beside.reader, beside.ids[LAYERS - 2], NULL, count_range, NULL);
}

/* --- at any moment --- */

static struct {
	int (*act)(void); /* NULL: done, or nothing to do */
	unsigned opened, at;
	int result;
} meanwhile;

static int open_meanwhile(int directory, const char *name, int flags, unsigned mode)
{
	if (meanwhile.act && ++meanwhile.opened == meanwhile.at) {
		int (*act)(void) = meanwhile.act;

		meanwhile.act = NULL;
		meanwhile.result = act();
	}
	return io_system.open(directory, name, flags, mode);
}

static void check(const char *what, int (*call)(void), const char *doing, int (*act)(void))
{
	struct io_ops table = io_system;
	unsigned at = 0;

	table.open = open_meanwhile;
	io_table = &table;
	cow_log_set(note_message, NULL);
	do {
		set_up();
		logged.count = 0;
		meanwhile.act = act;
		meanwhile.opened = 0;
		meanwhile.at = ++at;
		meanwhile.result = 0;
		is_errno(call(), 0, "%s while %s, at opening %u", what, doing, at);
		is_errno(meanwhile.result, 0, "%s while %s, at opening %u", doing, what, at);
		is_u64(logged.count, 0, "messages: %s", logged.last);
		tear_down();
	} while (!meanwhile.act && tap.failed < 10);
	meanwhile.act = NULL;
	cow_log_set(NULL, NULL);
	io_table = &io_system;
	ok(at > 1, "%s opens %u files", what, at - 1);
}

static void check_all(const char *doing, int (*act)(void))
{
	check("verify", verify, doing, act);
	check("verify of a layer", verify_layer, doing, act);
	check("list", list, doing, act);
	check("info", describe, doing, act);
	check("state", read_state, doing, act);
	check("restore", restore, doing, act);
	check("export", export, doing, act);
	check("diff", compare, doing, act);
}

/* As one does that was stopped between taking the layer's lock and removing the file. */
TEST(beside_a_writer_that_does_not_go_on)
{
	struct cow_layer_info info = COW_LAYER_INFO_INIT;
	struct cow_region *region = NULL;
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	char path[300];
	int fd;

	set_up();
	is_errno(cow_store_get_info(beside.reader, NULL, &info), 0, "HEAD");
	snprintf(path, sizeof(path), "%s/lock", scratch_path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	lock.l_start = (off_t)info.sequence + 1;
	ok(fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0, "its lock is taken");
	layer_patience_ns = 20000000;
	cow_log_set(note_message, NULL);
	is_errno(cow_store_restore(beside.reader, NULL, NULL, &region), -EBUSY, "not restored");
	ok(strstr(logged.last, "removing it") != NULL, "the log says so: %s", logged.last);
	cow_log_set(NULL, NULL);
	close(fd);
	is_errno(restore(), 0, "restored, once it is free");
	tear_down();
}

TEST(beside_a_compaction)
{
	check_all("compact", merge);
}

TEST(beside_chains_that_are_cut)
{
	check_all("compact to one parent", cut_chains);
}

TEST(beside_layers_that_are_compressed)
{
	if (!packer_is_there()) {
		skip("built without zstd");
		return;
	}
	check_all("compress", compress);
}

TEST(beside_a_head_that_is_given_up)
{
	check_all("delete", give_up_head);
}

TEST(beside_a_head_that_is_replaced)
{
	check("verify", verify, "save and delete", replace_head);
	check("list", list, "save and delete", replace_head);
	check("info", describe, "save and delete", replace_head);
	check("state", read_state, "save and delete", replace_head);
	check("restore", restore, "save and delete", replace_head);
	check("export", export, "save and delete", replace_head);
}

TAP_MAIN(CASE(beside_a_writer_that_does_not_go_on), CASE(beside_a_compaction),
	 CASE(beside_chains_that_are_cut), CASE(beside_layers_that_are_compressed),
	 CASE(beside_a_head_that_is_given_up), CASE(beside_a_head_that_is_replaced))
