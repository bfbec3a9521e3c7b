/* SPDX-License-Identifier: MIT */
#include "cli/machine.h"

#include <string.h>
#include <unistd.h>

#include "proc/root.h"
#include "proc/system.h"

#define THP "sys/kernel/mm/transparent_hugepage/"

/* The first "model name : Xeon" (x86; other kernels name no CPU). */
static void find_cpu(struct text cpuinfo, struct machine *machine)
{
	struct text line;

	while (text_line(&cpuinfo, &line)) {
		if (!text_begins(line, "model name"))
			continue;
		while (line.at < line.end && *line.at != ':')
			line.at++;
		text_take(&line, ':');
		text_skip_blanks(&line);
		text_copy(line, machine->cpu, sizeof(machine->cpu));
		return;
	}
}

static void look_at_memory(struct text meminfo, struct machine *machine)
{
	struct proc_meminfo memory;

	if (proc_meminfo_parse(meminfo, &memory) < 0)
		return;
	machine->memory_bytes = memory.total;
	machine->available_bytes = memory.available;
}

static void look_into(const struct proc_root *root, struct machine *machine)
{
	struct proc_buffer buffer = { 0 };
	struct text text, choice;

	if (proc_root_read(root, "proc/cpuinfo", &buffer, &text) == 0)
		find_cpu(text, machine);
	if (proc_root_read(root, "proc/meminfo", &buffer, &text) == 0)
		look_at_memory(text, machine);
	if (proc_root_read(root, THP "enabled", &buffer, &text) == 0 &&
	    proc_choice_parse(text, &choice) == 0)
		text_copy(choice, machine->huge_pages, sizeof(machine->huge_pages));
	proc_root_read_u64(root, THP "hpage_pmd_size", &machine->huge_page_bytes);
	proc_buffer_free(&buffer);
}

void machine_look(struct machine *ret_machine)
{
	struct machine machine = { .cpus = sysconf(_SC_NPROCESSORS_ONLN),
				   .page_bytes = (uint64_t)sysconf(_SC_PAGESIZE),
				   .huge_page_bytes = KEYED_ABSENT,
				   .memory_bytes = KEYED_ABSENT,
				   .available_bytes = KEYED_ABSENT };
	struct proc_root root;

	if (uname(&machine.kernel) < 0)
		memset(&machine.kernel, 0, sizeof(machine.kernel));
	if (proc_root_open(NULL, &root) == 0) {
		look_into(&root, &machine);
		proc_root_close(&root);
	}
	*ret_machine = machine;
}
