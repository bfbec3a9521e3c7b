/* SPDX-License-Identifier: MIT */
/* Images that qemu-img and qemu-io wrote, as layers; and what is refused, by its name. */
#include "tests/store/common.h"

/* 20 MiB: data, zeroes, holes, an end within a cluster. */
static void make_raw(const char *path)
{
	unsigned char content[PAGE];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || ftruncate(fd, (20 << 20) + 512) < 0)
		bail("%s: %s", path, strerror(errno));
	for (uint64_t page = 0; page < 5120; page++) {
		if (page % 97 > 60)
			continue;
		make_content(content, page, 1);
		if (page % 31 == 3)
			memset(content, 'a' + (int)(page % 26), sizeof(content));
		if (page % 13 == 5)
			memset(content, 0, sizeof(content));
		if (pwrite(fd, content, PAGE, (off_t)(page * PAGE)) != (ssize_t)PAGE)
			bail("%s: %s", path, strerror(errno));
	}
	close(fd);
}

static const char *at(const char *name)
{
	static char paths[8][300];
	static unsigned next;

	next = (next + 1) % 8;
	snprintf(paths[next], sizeof(paths[next]), "%s/%s", scratch_path, name);
	return paths[next];
}

/* Imported and exported it reads as qemu-img reads it. */
static void check_import(struct cow_store *store, const char *path)
{
	char id[COW_ID_LENGTH];

	unlink(at("expected"));
	unlink(at("exported"));
	if (!is_errno(cow_store_import(store, path, NULL, id), 0, "%s is imported", path))
		return;
	is_int(run("qemu-img convert -O raw '%s' '%s'", path, at("expected")), 0,
	       "qemu-img reads it");
	is_errno(cow_store_export(store, id, at("exported"), NULL, NULL), 0, "it is exported");
	is_int(run("cmp -n $(stat -c %%s '%s') '%s' '%s'", at("expected"), at("expected"),
		   at("exported")),
	       0, "%s reads the same", path);
	is_int(run("qemu-img check -q '%s/store/%s.qcow2'", scratch_path, id), 0, "and is sound");
}

static struct cow_store *set_up(void)
{
	char path[300];

	if (!have_qemu_img())
		skip_all("qemu-img is not here");
	quick_scratch();
	snprintf(path, sizeof(path), "%s/store", scratch_path);
	make_raw(at("raw"));
	return open_store(path, COW_STORE_CREATE);
}

TEST(qcow2_of_all_kinds)
{
	static const char *const kinds[] = {
		"cluster_size=65536",
		"cluster_size=4096",
		"cluster_size=512",
		"cluster_size=2M",
		"compat=0.10",
		"compat=v3,refcount_bits=1",
		"cluster_size=65536 -c",
		"cluster_size=4096 -c",
		"compat=0.10 -c",
		"compression_type=zstd -c",
		"compression_type=zstd,cluster_size=2M -c",
	};
	struct cow_store *store = set_up();

	check_import(store, at("raw"));
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		is_int(run("qemu-img convert -f raw -O qcow2 -o %s '%s' '%s'", kinds[i], at("raw"),
			   at("image")),
		       0, "made with %s", kinds[i]);
		check_import(store, at("image"));
	}
	cow_store_close(store);
}

TEST(chains)
{
	struct cow_store *store = set_up();

	is_int(run("cd '%s' && qemu-img create -q -f qcow2 -F raw -b raw one 30M && "
		   "qemu-io -c 'write -P 7 1M 100k' -c 'write -z 3M 1M' -c 'write -P 9 25M 5k' one "
		   "&& mkdir d && qemu-img create -q -f qcow2 -o cluster_size=4k -F qcow2 "
		   "-b ../one d/two && qemu-io -c 'write -P 11 2M 4k' -c 'discard 1M 64k' d/two",
		   scratch_path),
	       0, "a chain");
	check_import(store, at("one"));
	check_import(store, at("d/two"));
	cow_store_close(store);
}

TEST(a_child_of_a_layer)
{
	struct cow_store *store = set_up();
	struct cow_region *region = new_region(1000), *restored = NULL;
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	char id[COW_ID_LENGTH], imported[COW_ID_LENGTH];

	for (uint64_t page = 0; page < 1000; page++)
		put(region, page, 1);
	is_errno(save(store, region, NULL, id), 0, "a layer");
	is_int(run("cd '%s' && qemu-img create -q -f qcow2 -F qcow2 -b store/%s.qcow2 child && "
		   "qemu-io -c 'write -P 85 40k 4k' child",
		   scratch_path, id),
	       0, "its child");
	is_errno(cow_store_import(store, at("child"), NULL, imported), 0, "it is imported");
	options.trap = COW_TRAP_EXPLICIT;
	is_errno(cow_store_restore(store, imported, &options, &restored), 0, "and restored");
	if (restored) {
		unsigned char content[PAGE];

		is_u64(cow_region_get_length(restored), 1000 * PAGE, "its length");
		is_int(live_page(restored, 10), 85, "what qemu-io wrote");
		make_content(content, 11, 1);
		ok(memcmp(page_of(restored, 11), content, PAGE) == 0, "what was below");
	}
	cow_region_free(restored);
	cow_region_free(region);
	cow_store_close(store);
}

static void refuse(struct cow_store *store, int error, const char *name, const char *why)
{
	struct cow_import_options options = COW_IMPORT_OPTIONS_INIT;
	char id[COW_ID_LENGTH] = "untouched";

	options.tag = "t";
	logged.last[0] = '\0';
	is_errno(cow_store_import(store, at(name), &options, id), error, "%s", why);
	is_str(id, "untouched", "no identity");
	ok(strstr(logged.last, why) != NULL, "the log says so: %s", logged.last);
	is_int(run("test $(ls '%s/store' | grep -c qcow2) = 0", scratch_path), 0,
	       "nothing is left");
}

TEST(what_is_refused)
{
	struct cow_store *store = set_up();
	struct cow_import_options options = COW_IMPORT_OPTIONS_INIT;

	cow_log_set(note_message, NULL);
	is_int(run("cd '%s' && qemu-img create -q -f qcow2 --object secret,id=s,data=x "
		   "-o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 luks 1M && "
		   "qemu-img create -q -f qcow2 -o data_file=d.raw external 1M && "
		   "qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=64k extended 1M && "
		   "qemu-img create -q -f qcow2 -F qcow2 -u -b loop2 loop1 1M && "
		   "qemu-img create -q -f qcow2 -F qcow2 -u -b loop1 loop2 1M && "
		   "qemu-img create -q -f qcow2 -F raw -u -b nbd://localhost/x remote 1M && "
		   "qemu-img create -q -f qcow2 -F raw -u -b gone orphan 1M && "
		   "qemu-img create -q -f qcow2 -F vmdk -u -b raw vmdk 1M && "
		   "head -c 200 extended > short && : > empty",
		   scratch_path),
	       0, "images");
	refuse(store, -EOPNOTSUPP, "luks", "encryption");
	refuse(store, -EOPNOTSUPP, "external", "an external data file");
	refuse(store, -EOPNOTSUPP, "extended", "extended L2 entries");
	refuse(store, -EOPNOTSUPP, "remote", "not a file's name");
	refuse(store, -EOPNOTSUPP, "vmdk", "the format vmdk");
	refuse(store, -ELOOP, "loop1", "circle");
	refuse(store, -ENOENT, "orphan", "gone");
	refuse(store, -EUCLEAN, "short", "damaged");
	refuse(store, -EINVAL, "empty", "empty");
	refuse(store, -ENOENT, "nothing", "No such file");
	options.format = "qcow2";
	is_errno(cow_store_import(store, at("raw"), &options, NULL), -EINVAL, "it is raw");
	cow_log_set(NULL, NULL);
	cow_store_close(store);
}

TAP_MAIN(CASE(qcow2_of_all_kinds), CASE(chains), CASE(a_child_of_a_layer), CASE(what_is_refused))
