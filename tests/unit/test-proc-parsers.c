/* SPDX-License-Identifier: MIT */
/* The parsers of /proc: what kernels write, what they do not report, and what nobody should. */
#include "tests/tap.h"

#include "proc/areas.h"
#include "proc/name.h"
#include "proc/process.h"
#include "proc/system.h"

static struct text t(const char *string)
{
	return text_of_string(string);
}

TEST(numbers_are_exact_or_refused)
{
	struct text text = t("18446744073709551615x");
	uint64_t value = 7;

	is_errno(text_u64(&text, 10, &value), 0, "the largest number");
	is_u64(value, UINT64_MAX, "its value");
	ok(text_take(&text, 'x'), "the cursor stands behind it");
	text = t("18446744073709551616");
	is_errno(text_u64(&text, 10, &value), -ERANGE, "one more");
	is_u64(value, UINT64_MAX, "the value is left alone");
	is_errno(text_only_u64(t(" 12 \n"), &value), 0, "blanks around");
	is_errno(text_only_u64(t("12a"), &value), -EINVAL, "something behind");
	is_errno(text_only_u64(t("-1"), &value), -EINVAL, "a sign");
	is_errno(text_only_u64(t(""), &value), -EINVAL, "nothing");
	text = t("7ffd20fc8000");
	is_errno(text_u64(&text, 16, &value), 0, "hexadecimal");
	is_u64(value, 0x7ffd20fc8000, "its value");
}

TEST(nothing_is_read_behind_the_end)
{
	static const char bytes[] = { '1', '2', '3', '4' };
	struct text text = text_of(bytes, 2), line;
	uint64_t value;

	is_errno(text_u64(&text, 10, &value), 0, "two digits of four");
	is_u64(value, 12, "their value");
	ok(!text_line(&text, &line), "no line after that");
}

static const char stat_line[] = "4242 (%s) S 17 4242 4242 0 -1 4194560 101 202 3 4 50 60 0 0 20 0 "
				"7 0 987654 13000000 1736 18446744073709551615 1 1 0 0\n";

static int parse_named(const char *name, struct proc_stat *stat)
{
	char line[512], *at = strstr(stat_line, "%s");

	snprintf(line, sizeof(line), "%.*s%s%s", (int)(at - stat_line), stat_line, name, at + 2);
	return proc_stat_parse(t(line), stat);
}

TEST(stat_is_read_behind_any_name)
{
	static const char *const names[] = {
		"cat", "", "a b", "x) R 1 (", ") S 1 2 3", "new\nline", "\033[31m", "tab\t(",
	};
	struct proc_stat stat;
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!is_errno(parse_named(names[i], &stat), 0, "name %zu", i))
			continue;
		is_str(stat.command, names[i], "the name");
		is_u64(stat.pid, 4242, "PID");
		is_u64(stat.ppid, 17, "parent");
		is_int(stat.state, 'S', "state");
		is_u64(stat.minor_faults, 101, "minor faults");
		is_u64(stat.child_minor_faults, 202, "of children");
		is_u64(stat.major_faults, 3, "major faults");
		is_u64(stat.user_ticks, 50, "user time");
		is_u64(stat.system_ticks, 60, "system time");
		is_u64(stat.threads, 7, "threads");
		is_u64(stat.start_ticks, 987654, "start");
		is_u64(stat.resident_pages, 1736, "resident pages");
	}
}

TEST(stat_that_is_none_is_refused)
{
	static const char *const texts[] = {
		"",
		"1",
		"1 (a",
		"1 a S 1",
		"x (a) S 1 2",
		"1 (a) S",
		"1 (a) SS 1 2 3 4 5 6 7 8 9 10 11 12",
		"1 (a) S -1 1 1 0 -1 1 1 2 3 4 5 6 0 0 20 0 7 0 9 1 1",
	};
	struct proc_stat stat = { .pid = 5 };
	size_t i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		is_errno(proc_stat_parse(t(texts[i]), &stat), -EINVAL, "\"%s\"", texts[i]);
	is_u64(stat.pid, 5, "the result is left alone");
}

TEST(status_of_a_process_and_of_a_kernel_thread)
{
	struct proc_status status;

	is_errno(proc_status_parse(
			 t("Name:\tcat\nUid:\t1\t65534\t1\t1\nVmSize:\t    3060 kB\n"
			   "VmRSS:\t    1752 kB\nRssAnon:\t     116 kB\nVmPTE:\t      48 kB\n"
			   "VmSwap:\t       0 kB\nCapEff:\t000001fffeffffff\n"),
			 &status),
		 0, "a process");
	is_u64(status.resident_bytes, 1752 << 10, "RSS");
	is_u64(status.anonymous_bytes, 116 << 10, "of it anonymous");
	is_u64(status.page_table_bytes, 48 << 10, "page tables");
	is_u64(status.file_bytes, KEYED_ABSENT, "what was not told is absent");
	is_u64(status.effective_capabilities, 0x1fffeffffff, "capabilities");
	is_u64(status.user, 65534, "effective user");
	is_errno(proc_status_parse(t("Name:\tkthreadd\nUid:\t0\t0\t0\t0\n"), &status), 0,
		 "a kernel thread");
	is_u64(status.resident_bytes, KEYED_ABSENT, "has no memory");
	is_errno(proc_status_parse(t("VmRSS:\tmuch kB\n"), &status), -EINVAL,
		 "a word for a number");
	is_errno(proc_status_parse(t("VmRSS:\t99999999999999999999 kB\n"), &status), -ERANGE,
		 "a number too large");
	is_errno(proc_status_parse(t("VmRSS:\t18014398509481983 kB\n"), &status), 0, "just fits");
	is_errno(proc_status_parse(t("VmRSS:\t18014398509481984 kB\n"), &status), -ERANGE,
		 "too large as bytes");
	is_errno(proc_status_parse(t("CapEff:\n"), &status), -EINVAL, "no capabilities");
}

#define ROLLUP "Rss: 100 kB\nPss: 60 kB\nPrivate_Clean: 10 kB\nPrivate_Dirty: 30 kB\n"

TEST(smaps_sums_areas)
{
	struct proc_smaps smaps;

	is_errno(proc_smaps_parse(t("55-56 ---p 0 00:00 0 [rollup]\n" ROLLUP), &smaps), 0,
		 "rollup");
	is_u64(smaps.pss_bytes, 60 << 10, "PSS");
	is_u64(smaps.ksm_bytes, KEYED_ABSENT, "before Linux 6.6");
	is_errno(proc_smaps_parse(t("55-56 ---p 0 00:00 0 /a\n" ROLLUP
				    "57-58 ---p 0 00:00 0\n" ROLLUP),
				  &smaps),
		 0, "two areas");
	is_u64(smaps.rss_bytes, 200 << 10, "RSS is added up");
	is_errno(proc_smaps_parse(t(""), &smaps), -ENODATA, "nothing");
	is_errno(proc_smaps_parse(t("Rss: 5 kB\n"), &smaps), -EINVAL, "RSS alone");
	is_errno(proc_smaps_parse(t(ROLLUP "Pss: x\n"), &smaps), -EINVAL, "no number");
	is_errno(proc_smaps_parse(t(ROLLUP "Rss: 18014398509481983 kB\n"), &smaps), -ERANGE,
		 "a sum too large");
}

TEST(areas_of_all_kinds)
{
	struct text maps = t(
		"55f0d240a000-55f0d240c000 r-xp 00002000 fe:00 247134   /usr/bin/a b\n"
		"7f0000000000-7f0000200000 rw-s 00000000 00:01 9  /dev/zero (deleted)\n"
		"7ffd20fc5000-7ffd20fc8000 rw-p 00000000 00:00 0\n"
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n");
	struct proc_area area;

	is_int(proc_area_next(&maps, &area), 1, "a file");
	is_u64(area.start, 0x55f0d240a000, "start");
	is_u64(area.offset, 0x2000, "offset");
	is_u64(area.device_major, 0xfe, "device");
	is_u64(area.inode, 247134, "inode");
	ok(text_is(area.name, "/usr/bin/a b"), "a name with a blank");
	ok(area.executable && area.readable && !area.writable && !area.shared, "rights");
	is_int(proc_area_next(&maps, &area), 1, "shared memory");
	ok(area.shared && area.writable, "rights");
	is_int(proc_area_next(&maps, &area), 1, "anonymous memory");
	ok(text_is(area.name, ""), "without a name");
	is_int(proc_area_next(&maps, &area), 1, "in the kernel's half");
	is_int(proc_area_next(&maps, &area), 0, "the end");
}

TEST(areas_that_are_none)
{
	static const char *const texts[] = {
		"2000-1000 r-xp 0 0:0 0",
		"1000-1000 r-xp 0 0:0 0",
		"1001-2000 r-xp 0 0:0 0",
		"1000 r-xp 0 0:0 0",
		"1000-2000 r-x 0 0:0 0",
		"1000-2000 r-xp 0 0 0",
		"1000-2000 r-xp 0 0:0",
		"1000-2000",
		"\n",
		"1000-2000 r-xp z 0:0 0",
		"11112222333344445-2 r",
		"1000-2000 r-xp 0 100000000:0 0",
	};
	struct proc_area area;
	struct text text;
	size_t i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		text = t(texts[i]);
		is_errno(proc_area_next(&text, &area), -EINVAL, "\"%s\"", texts[i]);
	}
}

TEST(smaps_tells_more_of_areas)
{
	struct text smaps = t(
		"1000-3000 rw-p 0 0:0 0\nSize: 8 kB\nKernelPageSize: 4 kB\nVmFlags: rd\n"
		"200000-400000 rw-p 0 0:0 0\nKernelPageSize: 2048 kB\n");
	struct text details;
	struct proc_area area;

	is_int(proc_smaps_area_next(&smaps, &area, &details), 1, "an area");
	is_u64(area.start, 0x1000, "its start");
	ok(text_begins(details, "Size: 8 kB") && details.end[-2] == 'd', "its three lines");
	is_int(proc_smaps_area_next(&smaps, &area, &details), 1, "another one");
	ok(text_is(details, "KernelPageSize: 2048 kB\n"), "its line");
	is_int(proc_smaps_area_next(&smaps, &area, &details), 0, "the end");
	smaps = t("1000-3000 rw-p 0 0:0 0\n4000-5000 rw-p 0 0:0 0\n");
	is_int(proc_smaps_area_next(&smaps, &area, &details), 1, "an area of maps");
	is_u64(text_length(details), 0, "has no lines");
}

TEST(meminfo)
{
	struct proc_meminfo meminfo;

	is_errno(proc_meminfo_parse(t("MemTotal: 1000 kB\nMemAvailable: 300 kB\n"), &meminfo), 0,
		 "two");
	is_u64(meminfo.available, 300 << 10, "available");
	is_u64(meminfo.commit_limit, KEYED_ABSENT, "not told");
	is_errno(proc_meminfo_parse(t("Cached: 1 kB\n"), &meminfo), -ENODATA, "no total");
}

TEST(choices)
{
	struct text choice;

	is_errno(proc_choice_parse(t("always [madvise] never\n"), &choice), 0, "one of three");
	ok(text_is(choice, "madvise"), "the one in brackets");
	is_errno(proc_choice_parse(t("always"), &choice), -EINVAL, "no brackets");
	is_errno(proc_choice_parse(t("a [b"), &choice), -EINVAL, "half of them");
	is_errno(proc_choice_parse(t("[]"), &choice), -EINVAL, "nothing in them");
}

TEST(cgroups_of_both_versions)
{
	static const char both[] = "9:name=systemd:/s\n4:cpu,memory:/a:b\n0::/user.slice\n";
	struct text path;

	is_errno(proc_cgroup_find(t(both), "memory", &path), 0, "version 1");
	ok(text_is(path, "/a:b"), "its path");
	is_errno(proc_cgroup_find(t(both), "", &path), 0, "version 2");
	ok(text_is(path, "/user.slice"), "its path");
	is_errno(proc_cgroup_find(t(both), "mem", &path), -ENOENT, "part of a name");
	is_errno(proc_cgroup_find(t("0:\n::\n\n0::\n"), "", &path), -ENOENT, "nonsense");
}

TEST(mounts)
{
	struct text lines = t(
		"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext4 /dev/a rw\n"
		"37 35 0:5 / /x rw - tmpfs none\n38 35 0:5 / /y rw\n");
	struct proc_mount mount;

	is_int(proc_mount_next(&lines, &mount), 1, "with optional fields");
	ok(text_is(mount.root, "/mnt1") && text_is(mount.point, "/mnt\\0402"), "paths");
	ok(text_is(mount.type, "ext4") && text_is(mount.super_options, "rw"), "type and options");
	is_int(proc_mount_next(&lines, &mount), 1, "without");
	ok(text_is(mount.type, "tmpfs") && text_length(mount.super_options) == 0, "type");
	is_errno(proc_mount_next(&lines, &mount), -EINVAL, "without a dash");
}

TEST(settings)
{
	static const char file[] =
		"#shared_buffers = 1GB\nshared_buffers = 128MB\t# min 128kB\n"
		"shared_buffers_x = 1\n  effective_cache_size='4 GB'\nwork_mem 64\n";
	struct text value;
	uint64_t bytes;

	is_errno(proc_setting_find(t(file), "shared_buffers", &value), 0, "found");
	ok(text_is(value, "128MB"), "without its comment");
	is_errno(proc_setting_size(value, 8192, &bytes), 0, "a size");
	is_u64(bytes, 128 << 20, "its bytes");
	is_errno(proc_setting_find(t(file), "effective_cache_size", &value), 0, "in quotes");
	is_errno(proc_setting_size(value, 8192, &bytes), 0, "with a blank");
	is_u64(bytes, UINT64_C(4) << 30, "its bytes");
	is_errno(proc_setting_find(t(file), "work_mem", &value), 0, "without a sign");
	is_errno(proc_setting_size(value, 1024, &bytes), 0, "without a unit");
	is_u64(bytes, 64 << 10, "in the setting's own");
	is_errno(proc_setting_find(t(file), "autovacuum", &value), -ENOENT, "not there");
	is_errno(proc_setting_size(t("1.5GB"), 1, &bytes), -EINVAL, "a fraction");
	is_errno(proc_setting_size(t("on"), 1, &bytes), -EINVAL, "a word");
	is_errno(proc_setting_size(t("99999999TB"), 1, &bytes), -ERANGE, "too large");
}

TEST(zones_end_where_the_last_one_does)
{
	uint64_t end = 1;

	is_errno(proc_zoneinfo_end(t("Node 0, zone DMA\n  pages free 3\n        spanned  4095\n"
				     "  start_pfn:           1\nNode 0, zone Normal\n"
				     "        spanned  5505024\n  start_pfn:           1048576\n"
				     "Node 0, zone Movable\n        spanned  0\n  start_pfn: 0\n"),
				   &end),
		 0, "three zones");
	is_u64(end, 6553600, "their end");
	is_errno(proc_zoneinfo_end(t(""), &end), -EINVAL, "nothing");
	is_errno(proc_zoneinfo_end(t("spanned 18446744073709551615\nstart_pfn: 2\n"), &end),
		 -EINVAL, "an overflow");
	is_errno(proc_zoneinfo_end(t("spanned 99999999999999999\nstart_pfn: 0\n"), &end), -EINVAL,
		 "more than a frame number can say");
}

static void escapes(const char *name, const char *expected)
{
	char text[PROC_NAME_ROOM(PROC_COMMAND_LENGTH)];

	is_str(proc_name_escape(name, text, sizeof(text)), expected, "\"%s\"", expected);
}

TEST(names_are_safe_to_print)
{
	char text[6];

	escapes("redis-server", "redis-server");
	escapes("a\033[2Jb", "a\\x1b[2Jb");
	escapes("two\nlines\t.", "two\\nlines\\t.");
	escapes("back\\slash", "back\\\\slash");
	escapes("gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f");
	escapes("bad\xc3(", "bad\\xc3(");
	escapes("\xc2\x9b"
		"31m",
		"\\xc2\\x9b31m");
	escapes("\xe2\x80\xae"
		"txt",
		"\\xe2\\x80\\xaetxt");
	escapes("\xed\xa0\x80", "\\xed\\xa0\\x80");
	escapes("\x7f", "\\x7f");
	is_str(proc_name_escape("abc\033", text, sizeof(text)), "abc", "cut between characters");
}

TAP_MAIN(CASE(numbers_are_exact_or_refused), CASE(nothing_is_read_behind_the_end),
	 CASE(stat_is_read_behind_any_name), CASE(stat_that_is_none_is_refused),
	 CASE(status_of_a_process_and_of_a_kernel_thread), CASE(smaps_sums_areas),
	 CASE(areas_of_all_kinds), CASE(areas_that_are_none), CASE(smaps_tells_more_of_areas),
	 CASE(meminfo), CASE(choices), CASE(cgroups_of_both_versions), CASE(mounts), CASE(settings),
	 CASE(zones_end_where_the_last_one_does), CASE(names_are_safe_to_print))
