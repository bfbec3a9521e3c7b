/* SPDX-License-Identifier: MIT */
/*
 * cow file's arithmetic over extents, against a count of every byte; and the layers of an overlay
 * mount as the kernel writes them.
 */
#include <linux/fiemap.h>

#include "cli/file/file.h"
#include "proc/overlay.h"
#include "tests/tap.h"

#define PLACES  256
#define EXTENTS 24
#define ROWS    4
#define SYSTEMS 2

static uint64_t state = 88172645463325252u;

static uint32_t pick(uint32_t bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state % bound);
}

struct oracle {
	unsigned int count[SYSTEMS][PLACES];
	uint64_t unique, set_shared, outside;
	uint64_t inside[ROWS], exclusive[ROWS];
};

static void make(struct file_extent *extents, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		extents[i] = (struct file_extent){
			.physical = pick(PLACES - 32),
			.length = pick(32),
			.fs = pick(SYSTEMS),
			.row = pick(ROWS),
			.flags = pick(2) ? FIEMAP_EXTENT_SHARED : 0,
		};
		if (pick(8) == 0)
			extents[i].flags = FIEMAP_EXTENT_DATA_INLINE;
	}
}

static void count_bytes(const struct file_extent *extents, size_t count, struct oracle *oracle)
{
	uint64_t at;
	size_t i;

	for (i = 0; i < count; i++)
		for (at = 0; at < extents[i].length; at++)
			if (!(extents[i].flags & FIEMAP_EXTENT_DATA_INLINE))
				oracle->count[extents[i].fs][extents[i].physical + at]++;
}

static void judge_byte(const struct file_extent *extent, unsigned int count, struct oracle *oracle)
{
	if (count > 1)
		oracle->inside[extent->row]++;
	else if (extent->flags & FIEMAP_EXTENT_SHARED)
		oracle->outside++;
	else
		oracle->exclusive[extent->row]++;
}

static void judge(const struct file_extent *extents, size_t count, struct oracle *oracle)
{
	uint64_t at;
	size_t i, fs;

	for (fs = 0; fs < SYSTEMS; fs++)
		for (at = 0; at < PLACES; at++) {
			oracle->unique += oracle->count[fs][at] > 0;
			oracle->set_shared += oracle->count[fs][at] > 1;
		}
	for (i = 0; i < count; i++) {
		if (extents[i].flags & FIEMAP_EXTENT_DATA_INLINE) {
			oracle->exclusive[extents[i].row] += extents[i].length;
			oracle->unique += extents[i].length;
			continue;
		}
		for (at = 0; at < extents[i].length; at++)
			judge_byte(&extents[i],
				   oracle->count[extents[i].fs][extents[i].physical + at], oracle);
	}
}

static void compare(size_t count)
{
	struct file_extent extents[EXTENTS];
	struct file_row rows[ROWS] = { 0 };
	struct file_result result = { .rows = rows, .count = ROWS };
	struct oracle oracle = { 0 };
	size_t i;

	make(extents, count);
	for (i = 0; i < count; i++)
		file_sums_add_extent(&rows[extents[i].row].sums, &extents[i]);
	result.extents = (struct file_extents){ .list = extents, .count = count };
	file_find_sharing(&result);
	count_bytes(extents, count, &oracle);
	judge(extents, count, &oracle);
	is_u64(result.totals.unique, oracle.unique, "unique");
	is_u64(result.totals.set_shared, oracle.set_shared, "shared by the set");
	is_u64(result.totals.outside, oracle.outside, "shared outside");
	for (i = 0; i < ROWS; i++) {
		is_u64(rows[i].sums.inside, oracle.inside[i], "inside");
		is_u64(rows[i].sums.exclusive, oracle.exclusive[i], "exclusive");
	}
}

TEST(every_byte_is_counted_as_one_by_one)
{
	int round;

	for (round = 0; round < 3000; round++)
		compare(pick(EXTENTS + 1));
}

TEST(compressed_extents_are_units)
{
	const uint32_t flags = FIEMAP_EXTENT_ENCODED;
	struct file_extent extents[] = {
		/* Two of 128 KiB that lie 4 KiB apart: they do not overlap. */
		{ .physical = 4096, .length = 131072, .flags = flags },
		{ .physical = 8192, .length = 131072, .flags = flags },
		{ .physical = 8192, .length = 65536, .flags = flags, .row = 1 },
		{ .physical = 65536, .length = 4096, .flags = flags | FIEMAP_EXTENT_SHARED },
	};
	struct file_row rows[2] = { 0 };
	struct file_result result = {
		.rows = rows,
		.count = 2,
		.extents = { .list = extents, .count = 4 },
	};

	file_find_sharing(&result);
	is_u64(result.totals.unique, 2 * 131072 + 4096, "each unit once");
	is_u64(result.totals.set_shared, 131072, "one is shared inside");
	is_u64(result.totals.outside, 4096, "one is shared outside");
	is_u64(rows[0].sums.exclusive, 131072, "one is exclusive");
	is_u64(rows[1].sums.inside, 65536, "a part of a unit shares it");
}

TEST(ends_of_what_64_bits_hold)
{
	struct file_extent extents[] = {
		{ .physical = UINT64_MAX - 4096, .length = 4096 },
		{ .physical = UINT64_MAX - 4096, .length = 4096, .row = 1 },
		{ .physical = 0, .length = 0 },
	};
	struct file_row rows[2] = { 0 };
	struct file_result result = {
		.rows = rows,
		.count = 2,
		.extents = { .list = extents, .count = 3 },
	};

	file_find_sharing(&result);
	is_u64(result.totals.unique, 4096, "unique");
	is_u64(rows[1].sums.inside, 4096, "inside");
}

/* --- overlay options --- */

struct layers {
	char text[1024];
	int error;
};

static void list_layers(const char *options, struct layers *ret)
{
	static const char *const kinds[] = {
		[PROC_OVERLAY_UPPER] = "upper",
		[PROC_OVERLAY_LOWER] = "lower",
		[PROC_OVERLAY_DATA] = "data",
	};
	char path[PROC_OVERLAY_PATH];
	enum proc_overlay_kind kind;
	struct proc_overlay overlay;
	size_t at = 0;

	*ret = (struct layers){ 0 };
	proc_overlay_begin(text_of_string(options), &overlay);
	while ((ret->error = proc_overlay_next(&overlay, &kind, path)) > 0)
		at += (size_t)snprintf(ret->text + at, sizeof(ret->text) - at, "[%s %s]",
				       kinds[kind], path);
}

TEST(layers_of_an_overlay)
{
	struct layers layers;

	list_layers("rw,lowerdir=/a:/b,upperdir=/u,workdir=/w,index=off", &layers);
	is_str(layers.text, "[lower /a][lower /b][upper /u]", "as usual");
	list_layers("ro,lowerdir=/a\\040b:/c\\134:d:/e\\054f", &layers);
	is_str(layers.text, "[lower /a b][lower /c:d][lower /e,f]", "escapes over escapes");
	list_layers("ro,lowerdir=/a:/b::/d1::/d2,metacopy=on", &layers);
	is_str(layers.text, "[lower /a][lower /b][data /d1][data /d2]", "layers with data alone");
	list_layers("ro,lowerdir+=/a:b,lowerdir+=/c,datadir+=/d", &layers);
	is_str(layers.text, "[lower /a:b][lower /c][data /d]", "one by one: colons are plain");
	list_layers("rw", &layers);
	is_str(layers.text, "", "none");
	is_int(layers.error, 0, "none is no error");
	list_layers("rw,lowerdir=,upperdir=/u", &layers);
	is_errno(layers.error, -EINVAL, "an empty list");
	list_layers("rw,upperdir=", &layers);
	is_errno(layers.error, -EINVAL, "an empty path");
	list_layers("rw,lowerdir=/a\\000b", &layers);
	is_errno(layers.error, -EINVAL, "a zero within a path");
	ok(proc_overlay_has(text_of_string("rw,userxattr"), "userxattr"),
	   "an option without value");
	ok(!proc_overlay_has(text_of_string("rw,userxattrs"), "userxattr"), "not by its beginning");
}

TEST(paths_that_are_too_long)
{
	static char options[PROC_OVERLAY_PATH + 64], small[8];
	struct layers layers;

	strcpy(options, "rw,lowerdir=");
	memset(options + strlen(options), 'x', PROC_OVERLAY_PATH);
	list_layers(options, &layers);
	is_errno(layers.error, -ENAMETOOLONG, "a layer");
	is_errno(proc_mount_path(text_of_string("/mnt\\040x"), small, sizeof(small)), 0, "fits");
	is_str(small, "/mnt x", "unescaped");
	is_errno(proc_mount_path(text_of_string("/mnt\\040xyz"), small, sizeof(small)),
		 -ENAMETOOLONG, "does not fit");
}

TAP_MAIN(CASE(every_byte_is_counted_as_one_by_one), CASE(compressed_extents_are_units),
	 CASE(ends_of_what_64_bits_hold), CASE(layers_of_an_overlay), CASE(paths_that_are_too_long))
