/* SPDX-License-Identifier: MIT */
/* Settings of the machine and of its file systems that copy-on-write depends on. */
#include <fcntl.h>
#include <dirent.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/doctor/doctor.h"
#include "cli/output.h"
#include "proc/name.h"

/* The settings under /proc/sys/vm are the host's; a container can only be told so. */
static void advise_sysctl(struct doctor *doctor, struct finding *finding, const char *setting)
{
	finding_advice(finding, "%ssysctl -w %s",
		       doctor->container ? "on the host, since a container "
					   "cannot set it: " :
					   "",
		       setting);
}

static bool commitment_is_tight(const struct proc_meminfo *memory)
{
	return memory->commit_limit != KEYED_ABSENT && memory->committed != KEYED_ABSENT &&
	       memory->committed > memory->commit_limit / 10 * 9;
}

static void look_at_strict_overcommit(struct doctor *doctor)
{
	const struct proc_meminfo *memory = &doctor->memory;
	struct finding *finding = doctor_add(
		doctor, "overcommit", commitment_is_tight(memory) ? LEVEL_CRITICAL : LEVEL_WARNING,
		EVIDENCE_RULE);
	char committed[UNIT_LENGTH], limit[UNIT_LENGTH];

	finding_value(
		finding, "2 (strict): %s of %s committed",
		memory->committed == KEYED_ABSENT ? "?" :
						    format_bytes(committed, memory->committed),
		memory->commit_limit == KEYED_ABSENT ? "?" :
						       format_bytes(limit, memory->commit_limit));
	finding_meaning(finding,
			"a fork is charged at once for all that it may ever copy, and refused "
			"with ENOMEM where the limit does not hold it");
	advise_sysctl(doctor, finding, "vm.overcommit_memory=0, or a larger vm.overcommit_ratio");
	finding_reason(finding,
		       "rule of the kernel: every private writable area is charged in full");
}

static void look_at_overcommit(struct doctor *doctor)
{
	struct finding *finding;
	uint64_t mode;

	if (!doctor_read_u64(doctor, "proc/sys/vm/overcommit_memory", &mode))
		return;
	if (mode == 2) {
		look_at_strict_overcommit(doctor);
		return;
	}
	finding = doctor_add(doctor, "overcommit", LEVEL_OK, EVIDENCE_RULE);
	finding_value(finding, mode == 1 ? "1 (always)" : "0 (heuristic)");
	finding_meaning(
		finding,
		mode == 1 ?
			"a fork is never refused; when its copies do not fit, the OOM killer ends "
			"somebody" :
			"a fork is refused only where one area alone is larger than RAM and swap; "
			"when its copies do not fit, the OOM killer ends somebody");
	finding_reason(finding, "rule of the kernel");
}

static void look_at_swappiness(struct doctor *doctor)
{
	bool no_swap = doctor->memory.swap_total == 0;
	struct finding *finding;
	uint64_t value;

	if (!doctor_read_u64(doctor, "proc/sys/vm/swappiness", &value))
		return;
	finding = doctor_add(doctor, "swappiness", LEVEL_OK, EVIDENCE_NONE);
	finding_value(finding, "%llu%s", (unsigned long long)value, no_swap ? ", no swap" : "");
	finding_meaning(
		finding, "%s",
		no_swap ? "without swap the copies of a fork stay in RAM whatever it says" :
			  "how readily anonymous pages, as the copies of a fork are, go to swap "
			  "rather than the page cache shrinks");
	finding_reason(finding, "not measured here");
}

static void look_at_huge_pages(struct doctor *doctor)
{
	char mode[32], defrag[32] = "?";
	struct finding *finding;

	if (!doctor_read_word(doctor, "sys/kernel/mm/transparent_hugepage/enabled", mode,
			      sizeof(mode)))
		return;
	doctor_read_word(doctor, "sys/kernel/mm/transparent_hugepage/defrag", defrag,
			 sizeof(defrag));
	finding = doctor_add(doctor, "huge-pages", LEVEL_OK, EVIDENCE_MEASURED);
	finding_value(finding, "%s, defrag %s", mode, defrag);
	finding_meaning(
		finding,
		strcmp(mode, "never") == 0 ?
			"every fork copies an entry for each 4 KiB" :
			"a fork copies one entry for each 2 MiB where such pages are used; a first "
			"write then splits the page and copies 4 KiB");
	if (strcmp(mode, "never") == 0)
		finding_advice(finding,
			       "for large processes that fork: madvise, and MADV_HUGEPAGE in the "
			       "program; on old kernels measure first");
	finding_reason(
		finding,
		"measured on Linux 6.18: fork of 512 MB took 0.50 ms with huge pages, 10.4 ms "
		"without; a first write 11.6 us against 4.0 us, and not a copy of 2 MiB");
}

static void look_at_ksm(struct doctor *doctor)
{
	uint64_t running, sharing = 0, shared = 0, before;
	bool idle;
	struct finding *finding;

	if (!doctor_read_u64(doctor, "sys/kernel/mm/ksm/run", &running))
		return;
	doctor_read_u64(doctor, "sys/kernel/mm/ksm/pages_sharing", &sharing);
	doctor_read_u64(doctor, "sys/kernel/mm/ksm/pages_shared", &shared);
	before = shared + sharing;
	idle = running == 1 && !shared;
	finding = doctor_add(doctor, "ksm", idle ? LEVEL_NOTE : LEVEL_OK, EVIDENCE_NONE);
	finding_value(finding, "%s, %llu pages stand for %llu", running == 1 ? "on" : "off",
		      (unsigned long long)shared, (unsigned long long)before);
	finding_meaning(finding, idle   ? "ksmd looks for equal pages and has found none" :
				 shared ? "equal pages are one; a write to one copies it" :
					  "equal pages stay apart");
	if (idle)
		finding_advice(finding,
			       "echo 0 >/sys/kernel/mm/ksm/run, unless programs that offer pages "
			       "(MADV_MERGEABLE) are still to come");
	finding_reason(finding, "what ksmd costs was not measured here");
}

static void look_at_map_count(struct doctor *doctor)
{
	struct finding *finding;
	uint64_t most;

	if (!doctor_read_u64(doctor, "proc/sys/vm/max_map_count", &most))
		return;
	finding = doctor_add(doctor, "max-map-count", most < 65530 ? LEVEL_WARNING : LEVEL_OK,
			     EVIDENCE_RULE);
	finding_value(finding, "%llu", (unsigned long long)most);
	finding_meaning(
		finding,
		"areas a process may have; mprotect() of single pages, as libcow's trap of that "
		"name does it, splits one into up to three, and fails with ENOMEM at the limit");
	if (most < 65530)
		advise_sysctl(doctor, finding, "vm.max_map_count=65530");
	finding_reason(finding, "rule of the kernel; 65530 is its default");
}

static void look_at_userfaultfd(struct doctor *doctor)
{
	struct finding *finding;
	uint64_t value;

	if (!doctor_read_u64(doctor, "proc/sys/vm/unprivileged_userfaultfd", &value))
		return;
	finding = doctor_add(doctor, "userfaultfd", LEVEL_OK, EVIDENCE_RULE);
	finding_value(finding, "%s",
		      value ? "for everybody" :
			      "user faults for all, the kernel's own with "
			      "CAP_SYS_PTRACE");
	finding_meaning(
		finding, "the traps 'signal' and 'thread' of libcow%s",
		value ? " see every write" :
			"; without privilege a system call that writes into a protected page "
			"fails with EFAULT");
	if (!value)
		finding_advice(finding,
			       "give the service CAP_SYS_PTRACE or access to /dev/userfaultfd, not "
			       "vm.unprivileged_userfaultfd=1 to all");
	finding_reason(finding, "rule of the kernel since 5.11; cow probe tries the traps");
}

void doctor_look_at_machine(struct doctor *doctor)
{
	look_at_overcommit(doctor);
	look_at_swappiness(doctor);
	look_at_huge_pages(doctor);
	look_at_ksm(doctor);
	look_at_map_count(doctor);
	look_at_userfaultfd(doctor);
}

/* --- file systems --- */

static void look_at_btrfs(struct doctor *doctor, const char *id)
{
	char path[160], total[UNIT_LENGTH], used[UNIT_LENGTH];
	uint64_t size = 0, bytes = 0;
	struct finding *finding;
	bool full;

	snprintf(path, sizeof(path), "sys/fs/btrfs/%s/allocation/metadata/total_bytes", id);
	if (!doctor_read_u64(doctor, path, &size))
		return;
	snprintf(path, sizeof(path), "sys/fs/btrfs/%s/allocation/metadata/bytes_used", id);
	doctor_read_u64(doctor, path, &bytes);
	full = size && bytes > size / 10 * 9;
	finding = doctor_add(doctor, "btrfs", full ? LEVEL_WARNING : LEVEL_OK, EVIDENCE_RULE);
	finding_value(finding, "%.8s: %s of %s metadata used", id, format_bytes(used, bytes),
		      format_bytes(total, size));
	finding_meaning(finding, "every overwrite goes to a new place and needs metadata first%s",
			full ? "; it may say ENOSPC though data would fit" : "");
	if (full)
		finding_advice(finding,
			       "btrfs balance start -dusage=50 gives unused data space back");
	finding_reason(finding,
		       "rule of the file system; what nodatacow would gain was not measured here");
}

/* Directories under sys/fs/btrfs that are file systems: their names are UUIDs. */
static void look_at_all_btrfs(struct doctor *doctor)
{
	int fd = proc_root_open_directory(&doctor->root, "sys/fs/btrfs");
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	if (!directory) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(directory)))
		if (strlen(entry->d_name) == 36)
			look_at_btrfs(doctor, entry->d_name);
	closedir(directory);
}

/* The hint of the root directory, which new files inherit; 0: the default of 32 blocks. */
static bool read_cow_extent_size(struct doctor *doctor, const char *point, uint64_t *ret_bytes)
{
	struct fsxattr attributes = { 0 };
	bool known = false;
	int fd;

	if (doctor->root.captured)
		return false;
	fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes) == 0) {
		*ret_bytes = attributes.fsx_cowextsize;
		known = true;
	}
	close(fd);
	return known;
}

static void look_at_xfs(struct doctor *doctor, struct text point)
{
	char path[200], shown[PROC_NAME_ROOM(100)], hint[UNIT_LENGTH];
	uint64_t bytes = 0, lifetime = 0;
	struct finding *finding;
	bool known, has_lifetime;

	text_copy(point, path, sizeof(path));
	known = read_cow_extent_size(doctor, path, &bytes);
	has_lifetime = doctor_read_u64(doctor, "proc/sys/fs/xfs/speculative_cow_prealloc_lifetime",
				       &lifetime);
	finding = doctor_add(doctor, "xfs", LEVEL_OK, EVIDENCE_NONE);
	path[100] = '\0';
	finding_value(finding, "%.60s: cowextsize %s%s",
		      proc_name_escape(path, shown, sizeof(shown)),
		      !known ? "unknown" :
		      bytes  ? format_bytes(hint, bytes) :
			       "default (32 blocks)",
		      has_lifetime ? "" : ", lifetime unknown");
	if (has_lifetime)
		finding_meaning(
			finding,
			"a write to a shared extent reserves so much around it, for %llu s: fewer "
			"fragments, more space",
			(unsigned long long)lifetime);
	else
		finding_meaning(
			finding,
			"a write to a shared extent reserves so much around it: fewer fragments, "
			"more space");
	finding_reason(finding, "not measured here");
}

void doctor_look_at_file_systems(struct doctor *doctor)
{
	struct proc_buffer buffer = { 0 };
	struct proc_mount mount;
	struct text text;

	look_at_all_btrfs(doctor);
	/* In a buffer of its own: the checks read other files meanwhile. */
	if (proc_root_read(&doctor->root, "proc/self/mountinfo", &buffer, &text) == 0)
		while (proc_mount_next(&text, &mount) > 0)
			if (text_is(mount.type, "xfs"))
				look_at_xfs(doctor, mount.point);
	proc_buffer_free(&buffer);
}
