/* SPDX-License-Identifier: MIT */
/* The bytes of a store's files (store/format.h): what is written is read, what lies is refused. */
#include <sys/mman.h>

#include "store/format.h"
#include "tests/tap.h"

static struct footer sound_footer(void)
{
	return (struct footer){
		.id = { "an identity" },
		.sequence = 7,
		.length = 10 * CLUSTER,
		.page_size = 4096,
		.virtual_size = SLICE_BYTES + 2 * CLUSTER,
		.meta_clusters = 5,
		.manifest_cluster = 9,
		.crc_count = 9,
	};
}

static int decode(const struct footer *footer, struct footer *ret_footer)
{
	unsigned char cluster[CLUSTER];

	footer_encode(footer, cluster);
	return footer_decode(cluster, ret_footer);
}

TEST(a_footer_comes_back_as_it_was)
{
	struct footer footer = sound_footer(), got;

	is_errno(decode(&footer, &got), 0, "it is read");
	ok(id_equal(&got.id, &footer.id) && id_is_none(&got.parent), "its identity, no parent");
	is_u64(got.sequence, 7, "sequence");
	is_u64(got.length, footer.length, "length");
	is_u64(got.crc_count, 9, "checksums");
	footer.sequence = SEQUENCE_MAX;
	is_errno(decode(&footer, &got), 0, "the last sequence");
}

static void is_refused(const struct footer *footer, const char *why)
{
	struct footer got = { .sequence = 99 };

	is_errno(decode(footer, &got), -EUCLEAN, "%s", why);
	is_u64(got.sequence, 99, "and nothing is handed out");
}

/* With its checksums right: somebody made it so. */
TEST(a_footer_that_lies_is_refused)
{
	struct footer footer = sound_footer();

	footer.sequence = UINT64_MAX;
	is_refused(&footer, "a sequence whose lock would be the writer's");
	footer = sound_footer();
	footer.sequence = SEQUENCE_MAX + 1;
	is_refused(&footer, "a sequence that no lock can be had for");
	footer = sound_footer();
	footer.length = 0;
	is_refused(&footer, "an empty region");
	footer.length = 10 * CLUSTER - 1;
	is_refused(&footer, "a region that ends within a cluster");
	footer.length = LENGTH_STORED_MAX + CLUSTER;
	is_refused(&footer, "a region that is too long");
	footer = sound_footer();
	footer.page_size = 1000;
	is_refused(&footer, "pages that are no clusters");
	footer = sound_footer();
	footer.manifest_cluster = 4;
	is_refused(&footer, "metadata that reaches into the manifest");
	footer = sound_footer();
	footer.crc_count = 8;
	is_refused(&footer, "too few checksums");
	footer = sound_footer();
	footer.virtual_size = SLICE_BYTES;
	is_refused(&footer, "a guest without room for the manifest");
}

TEST(checksums_of_any_length)
{
	const size_t length = ((size_t)4 << 30) + 4096;
	unsigned char *zeroes = mmap(NULL, length, PROT_READ,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	is_u64(crc32c("123456789", 9), 0xe3069283, "the check value that is published");
	is_u64(crc32c("", 0), 0, "nothing");
	if (zeroes == MAP_FAILED)
		bail("mmap: %s", strerror(errno));
	is_u64(crc32c(zeroes, CLUSTER), crc32c_of_zero_cluster(), "zeroes");
	is_u64(crc32c(zeroes, length), 0x3704d0a2, "more than 4 GiB");
	munmap(zeroes, length);
}

TEST(names)
{
	char text[COW_ID_LENGTH], name[LAYER_NAME_LENGTH];
	struct layer_id id, got;

	is_errno(id_new(&id), 0, "an identity");
	id_print(&id, text);
	ok(id_parse(text, &got) && id_equal(&id, &got), "as text, and back");
	layer_name(&id, name);
	ok(layer_name_parse(name, &got) && id_equal(&id, &got), "as a file's name, and back");
	name[0] = 'G';
	ok(!layer_name_parse(name, &got), "no hexadecimal digit");
	ok(!id_parse("", &got) && !id_parse("0123", &got), "too short");
	ok(!tag_is_valid(text), "a tag that is an identity");
	ok(!tag_is_valid("") && !tag_is_valid("HEAD") && !tag_is_valid("-a") &&
		   !tag_is_valid(".a") && !tag_is_valid("a/b") && !tag_is_valid("a b"),
	   "no tags");
	ok(tag_is_valid("v1.0_x@y+z"), "a tag");
}

TEST(entries_of_compressed_clusters)
{
	for (uint64_t offset = 4096; offset < 6000; offset += 7)
		for (uint64_t bytes = 1; bytes < PACKED_MAX; bytes = bytes * 3 + 11) {
			uint64_t entry = packed_entry(offset, bytes);

			if (!is_u64(packed_offset(entry), offset, "offset") ||
			    !ok(packed_bytes(entry) >= bytes && packed_bytes(entry) < bytes + 512,
				"%llu bytes at %llu: up to the end of the sector",
				(unsigned long long)bytes, (unsigned long long)offset))
				return;
		}
}

TAP_MAIN(CASE(a_footer_comes_back_as_it_was), CASE(a_footer_that_lies_is_refused),
	 CASE(checksums_of_any_length), CASE(names), CASE(entries_of_compressed_clusters))
