/* SPDX-License-Identifier: MIT */
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/probe/probe.h"

#define THP "sys/kernel/mm/transparent_hugepage/"

static void look_at_status(struct doctor *doctor, struct probe_facts *facts)
{
	struct {
		uint64_t filter, no_new_privileges;
	} words;
	static const struct keyed_field fields[] = {
		{ "Seccomp", 0 },
		{ "NoNewPrivs", sizeof(uint64_t) },
	};
	struct proc_status status;
	struct text text;

	facts->filter = FILTER_UNKNOWN;
	if (!doctor_read(doctor, "proc/self/status", &text))
		return;
	if (proc_status_parse(text, &status) == 0)
		facts->capabilities = status.effective_capabilities;
	keyed_clear(fields, 2, &words);
	if (keyed_parse(text, fields, 2, KEYED_FIRST, &words) < 0)
		return;
	if (words.filter <= FILTER_PROGRAM)
		facts->filter = (enum filter)words.filter;
	facts->no_new_privileges = words.no_new_privileges == 1;
}

static void look_at_device(struct probe_device *device)
{
	struct stat status;

	if (stat("/dev/userfaultfd", &status) < 0)
		return;
	*device = (struct probe_device){ true, status.st_mode & 07777, status.st_uid,
					 status.st_gid };
}

static uint64_t number(struct doctor *doctor, const char *path)
{
	uint64_t value;

	return doctor_read_u64(doctor, path, &value) ? value : PROBE_UNKNOWN;
}

static void look_at_huge_pages(struct doctor *doctor, struct probe_facts *facts)
{
	facts->huge_page_bytes = number(doctor, THP "hpage_pmd_size");
	doctor_read_word(doctor, THP "enabled", facts->huge_pages, PROBE_WORD);
	doctor_read_word(doctor, THP "shmem_enabled", facts->shared_huge_pages, PROBE_WORD);
}

static void look_at_limits(struct doctor *doctor, struct probe_facts *facts)
{
	struct proc_meminfo memory;
	struct rlimit limit;
	struct text text;

	facts->map_count = number(doctor, "proc/sys/vm/max_map_count");
	facts->overcommit = number(doctor, "proc/sys/vm/overcommit_memory");
	facts->memory_bytes = facts->available_bytes = facts->descriptors = PROBE_UNKNOWN;
	if (doctor_read(doctor, "proc/meminfo", &text) && proc_meminfo_parse(text, &memory) == 0) {
		facts->memory_bytes = memory.total;
		if (memory.available != KEYED_ABSENT)
			facts->available_bytes = memory.available;
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		facts->descriptors = limit.rlim_cur;
	if (!doctor_find_cgroup(doctor, 0, &facts->cgroup))
		facts->cgroup.version = 0;
}

static void look_around(struct doctor *doctor, struct probe_facts *facts)
{
	look_at_status(doctor, facts);
	look_at_huge_pages(doctor, facts);
	look_at_limits(doctor, facts);
	facts->unprivileged = number(doctor, "proc/sys/vm/unprivileged_userfaultfd");
	facts->container = doctor_is_container(doctor);
}

int probe_look(struct probe_facts *ret_facts)
{
	struct probe_facts facts = { .system = COW_SYSTEM_INIT, .filter = FILTER_UNKNOWN };
	struct doctor doctor = { 0 };
	int r = cow_system_probe(&facts.system);

	if (r < 0)
		return r;
	if (uname(&facts.kernel) < 0)
		memset(&facts.kernel, 0, sizeof(facts.kernel));
	facts.user = geteuid();
	look_at_device(&facts.device);
	r = proc_root_open(NULL, &doctor.root);
	if (r < 0)
		return r;
	look_around(&doctor, &facts);
	proc_buffer_free(&doctor.buffer);
	proc_root_close(&doctor.root);
	*ret_facts = facts;
	return 0;
}

bool probe_has(const struct probe_facts *facts, int capability)
{
	return (facts->capabilities & UINT64_C(1) << capability) != 0;
}
