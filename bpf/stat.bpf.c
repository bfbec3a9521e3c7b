/* SPDX-License-Identifier: MIT */
/*
 * Counts copy-on-write by process, on tracepoints alone: fentry and kprobes are refused on many
 * machines, and the functions behind a write fault have other names in every second kernel.
 *
 * Model
 * - exceptions:page_fault_* says that a task writes to a page that is present but protected, or to
 *   one that is not there. What the kernel does about it shows in the next movable page that the
 *   same task allocates before it faults again: none, it reused the page; one that is not zeroed,
 *   it copied; one that is, it filled with zeroes.
 * - Every task has a record in task storage: the slot of its process and the fault that is open.
 *   The record is made when the task is (task_newtask) or, of those that were there before, at
 *   their first fault, from the leader's, which the command has placed.
 * - An allocation counts only if the task came into the kernel by the same entry as with its
 *   fault: else a page-cache page that a later system call allocates would look like a copy.
 *
 * Limits: x86-64, since elsewhere there are no such tracepoints. Writes on a task's behalf by
 * pinning (ptrace, direct I/O into memory) take no fault. A write fault in kernel mode that reuses
 * its page, followed in the same system call by an allocation for the page cache, is taken for a
 * copy. A spurious fault (another thread was faster) is taken for a reuse. What is swapped in as
 * one page larger than 4 KiB is taken for zero-filled.
 *
 * Types are local and minimal; the loader relocates their fields for the running kernel.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "bpf/stat.h"

#define FAULT_PRESENT 1UL
#define FAULT_WRITE   2UL

/* Macros of the kernel, hence not in its type information; the same in 5.17 to 6.18. */
#define GFP_MOVABLE  0x08U
#define GFP_ZERO     0x100U
#define VM_SHARED    0x08UL
#define VM_MAYSHARE  0x80UL
#define CLONE_VM     0x100UL
#define CLONE_THREAD 0x10000UL

#define NR_CLONE  56
#define NR_FORK   57
#define NR_VFORK  58
#define NR_CLONE3 435

#define RELOCATED __attribute__((preserve_access_index))

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
	unsigned long min_flt, maj_flt;
} RELOCATED;

struct task_struct {
	int pid, tgid;
	struct task_struct *group_leader, *real_parent;
	char comm[16];
	struct signal_struct *signal;
	unsigned long min_flt, maj_flt;
} RELOCATED;

struct pt_regs {
	unsigned long ip, orig_ax;
} RELOCATED;

struct file;

struct vm_area_struct {
	unsigned long vm_start, vm_end;
	unsigned long vm_flags;
	struct file *vm_file;
} RELOCATED;

/* Set before it is loaded. */
const volatile bool whole_system; /* tasks need not be placed by the command */

/* The next never used; both begin with 1, which the command sets, who places some first. */
__u32 next_slot;
__u64 next_serial;
__u64 lost;

enum pending { NOTHING, WRITE_PRESENT, WRITE_ABSENT };
enum kind { KIND_UNKNOWN, KIND_ANONYMOUS, KIND_PRIVATE_FILE, KIND_SHARED };

/*
 * Looking up an area costs more than the fault itself: interrupts are off when it is traced, and
 * the lock can only be dropped by an interrupt of its own. So a task remembers some, and a new
 * process begins with its parent's. They are looked up anew after some uses, as areas come and go;
 * to be inherited counts for several, since a child may live on what its parent has long unmapped.
 */
#define AREA_USES        1024
#define AREA_INHERITANCE 16

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct bpf_stat_task);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BPF_STAT_SLOTS);
	__type(key, __u32);
	__type(value, struct bpf_stat_process);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, BPF_STAT_SLOTS);
	__uint(value_size, sizeof(__u32));
} free_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, BPF_STAT_RING);
} events SEC(".maps");

static struct bpf_stat_process *process_at(__u32 slot)
{
	return bpf_map_lookup_elem(&processes, &slot);
}

/* The task's process, or slot 0 where its slot has another owner by now. */
static struct bpf_stat_process *process_of(const struct bpf_stat_task *task)
{
	struct bpf_stat_process *process = process_at(task->slot);

	if (!process || process->serial == task->serial)
		return process;
	return process_at(0);
}

/*
 * An atomic addition waits for all stores before it, here those of the page that was just zeroed or
 * is about to be copied: 150 ns, a tenth of the fault. A process of one thread needs none.
 */
static void count(struct bpf_stat_process *process, enum bpf_stat_count what, __u64 by)
{
	if (process->shared)
		__sync_fetch_and_add(&process->counts[what], by);
	else
		process->counts[what] += by;
}

static bool is_counting(const struct bpf_stat_process *process)
{
	return process->state != BPF_STAT_WAITING;
}

/* A free slot, or 0. */
static __u32 take_slot(void)
{
	__u32 slot = 0;

	if (next_slot < BPF_STAT_SLOTS) {
		slot = __sync_fetch_and_add(&next_slot, 1);
		if (slot < BPF_STAT_SLOTS)
			return slot;
	}
	if (bpf_map_pop_elem(&free_slots, &slot) != 0)
		return 0;
	return slot;
}

/* Gives a process a slot, and the storage of its task a reference to it. */
static void place(struct bpf_stat_task *task, struct task_struct *of, __u64 parent_serial)
{
	struct bpf_stat_process *process;

	task->slot = take_slot();
	task->serial = 0;
	if (!task->slot) {
		__sync_fetch_and_add(&lost, 1);
		return;
	}
	process = process_at(task->slot);
	if (!process)
		return;
	__builtin_memset(process->counts, 0, sizeof(process->counts));
	process->parent_serial = parent_serial;
	process->pid = of->tgid;
	process->parent = of->real_parent->tgid;
	bpf_probe_read_kernel_str(process->command, sizeof(process->command), of->comm);
	process->state = BPF_STAT_COUNTING;
	process->shared = of->signal->live.counter > 1;
	task->serial = __sync_fetch_and_add(&next_serial, 1);
	/* Last: a reader takes the record for one from here on. */
	__sync_lock_test_and_set(&process->serial, task->serial);
}

static struct bpf_stat_task *adopt(struct task_struct *current)
{
	struct task_struct *leader = current->group_leader;
	struct bpf_stat_task *task, *first;

	first = bpf_task_storage_get(&tasks, leader, NULL, 0);
	if (!first) {
		if (!whole_system)
			return NULL;
		first = bpf_task_storage_get(&tasks, leader, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (!first)
			return NULL;
		place(first, leader, 0);
	}
	if (leader->pid == current->pid)
		return first;
	task = bpf_task_storage_get(&tasks, current, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (task) {
		task->slot = first->slot;
		task->serial = first->serial;
	}
	return task;
}

/* The current task's record; NULL if it is not counted. */
static struct bpf_stat_task *find_task(struct task_struct *current)
{
	struct bpf_stat_task *task = bpf_task_storage_get(&tasks, current, NULL, 0);

	return task ? task : adopt(current);
}

static long look_at_area(struct task_struct *task, struct vm_area_struct *from,
			 struct bpf_stat_area *area)
{
	area->start = from->vm_start;
	area->end = from->vm_end;
	if (from->vm_flags & (VM_SHARED | VM_MAYSHARE))
		area->kind = KIND_SHARED;
	else
		area->kind = from->vm_file ? KIND_PRIVATE_FILE : KIND_ANONYMOUS;
	return 0;
}

static bool covers(const struct bpf_stat_area *area, __u64 address)
{
	return address >= area->start && address < area->end;
}

static __u32 find_area(const struct bpf_stat_task *task, __u64 address)
{
	__u32 i;

	for (i = 0; i < BPF_STAT_AREAS; i++)
		if (covers(&task->areas[i], address))
			return i;
	for (i = 0; i < BPF_STAT_AREAS; i++)
		if (!task->areas[i].uses)
			return i;
	/* Any but the last. */
	return (task->last_area + 1) % BPF_STAT_AREAS;
}

static enum kind kind_at(struct bpf_stat_task *task, struct task_struct *current, __u64 address)
{
	struct bpf_stat_area found = { .uses = AREA_USES }, *area;
	__u32 at = task->last_area % BPF_STAT_AREAS;

	area = &task->areas[at];
	if (!covers(area, address)) {
		at = find_area(task, address) % BPF_STAT_AREAS;
		task->last_area = at;
		area = &task->areas[at];
	}
	if (covers(area, address) && area->uses) {
		area->uses--;
		return area->kind;
	}
	/* Fails where someone changes the address space just now. */
	bpf_find_vma(current, address, look_at_area, &found, 0);
	*area = found;
	return found.kind;
}

static void inherit_areas(struct bpf_stat_task *child, struct bpf_stat_task *parent)
{
	__u32 i;

	for (i = 0; i < BPF_STAT_AREAS; i++) {
		if (parent->areas[i].uses < AREA_INHERITANCE) {
			parent->areas[i].uses = 0; /* to be looked up, for the next child */
			continue;
		}
		parent->areas[i].uses -= AREA_INHERITANCE;
		child->areas[i] = parent->areas[i];
	}
}

static void forget_areas(struct bpf_stat_task *task)
{
	__builtin_memset(task->areas, 0, sizeof(task->areas));
}

static void on_write_fault(struct bpf_stat_task *task, struct task_struct *current,
			   unsigned long address, unsigned long error)
{
	struct bpf_stat_process *process = process_of(task);
	struct pt_regs *entry;

	if (!process || !is_counting(process))
		return;
	if (error & FAULT_PRESENT) {
		count(process, BPF_STAT_WRITE_FAULTS, 1);
		if (kind_at(task, current, address) == KIND_SHARED) {
			count(process, BPF_STAT_SHARED_WRITES, 1);
			return;
		}
	}
	entry = (struct pt_regs *)bpf_task_pt_regs(current);
	task->entry_ip = entry->ip;
	task->entry_ax = entry->orig_ax;
	task->address = address;
	task->pending = error & FAULT_PRESENT ? WRITE_PRESENT : WRITE_ABSENT;
}

static void on_fault(unsigned long address, unsigned long error)
{
	struct task_struct *current = bpf_get_current_task_btf();
	struct bpf_stat_task *task = find_task(current);

	if (!task)
		return;
	task->pending = NOTHING;
	if (error & FAULT_WRITE)
		on_write_fault(task, current, address, error);
}

SEC("tp_btf/page_fault_user")
int BPF_PROG(page_fault_user, unsigned long address, struct pt_regs *regs, unsigned long error)
{
	on_fault(address, error);
	return 0;
}

SEC("tp_btf/page_fault_kernel")
int BPF_PROG(page_fault_kernel, unsigned long address, struct pt_regs *regs, unsigned long error)
{
	on_fault(address, error);
	return 0;
}

/* What the page is for that a write to an absent one allocated. */
static void count_absent(struct bpf_stat_process *process, struct bpf_stat_task *task,
			 struct task_struct *current, unsigned int order, unsigned int gfp)
{
	enum kind kind;

	if (gfp & GFP_ZERO) {
		count(process, BPF_STAT_ZERO_FILLED, 1ULL << order);
		return;
	}
	/* Single pages that are not zeroed are swapped in, or a file's; others are zeroed later. */
	kind = kind_at(task, current, task->address);
	if (kind == KIND_PRIVATE_FILE)
		count(process, BPF_STAT_FILE_COPIED, 1ULL << order);
	else if (kind == KIND_ANONYMOUS && order)
		count(process, BPF_STAT_ZERO_FILLED, 1ULL << order);
}

static void on_allocation(struct bpf_stat_task *task, struct task_struct *current,
			  unsigned int order, unsigned int gfp)
{
	struct pt_regs *entry = (struct pt_regs *)bpf_task_pt_regs(current);
	struct bpf_stat_process *process = process_of(task);
	__u32 pending = task->pending;

	task->pending = NOTHING;
	if (!process || entry->ip != task->entry_ip || entry->orig_ax != task->entry_ax)
		return;
	if (pending == WRITE_ABSENT)
		count_absent(process, task, current, order, gfp);
	else if (gfp & GFP_ZERO || order) /* of huge pages, only the one of zeroes is replaced */
		count(process, BPF_STAT_ZERO_REPLACED, 1ULL << order);
	else
		count(process, BPF_STAT_COPIED, 1);
}

SEC("tp_btf/mm_page_alloc")
int BPF_PROG(mm_page_alloc, void *page, unsigned int order, unsigned int gfp)
{
	struct task_struct *current;
	struct bpf_stat_task *task;

	if (!(gfp & GFP_MOVABLE))
		return 0;
	current = bpf_get_current_task_btf();
	/* Never makes a record: that would allocate within the allocator. */
	task = bpf_task_storage_get(&tasks, current, NULL, 0);
	if (task && task->pending)
		on_allocation(task, current, order, gfp);
	return 0;
}

/* Runs in the parent; the new task has not run yet. */
SEC("tp_btf/task_newtask")
int BPF_PROG(task_newtask, struct task_struct *new_task, unsigned long flags)
{
	struct bpf_stat_task *task = find_task(bpf_get_current_task_btf()), *child;
	struct bpf_stat_process *process;

	if (!task)
		return 0;
	process = process_of(task);
	if (!process || !is_counting(process))
		return 0;
	child = bpf_task_storage_get(&tasks, new_task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!child)
		__sync_fetch_and_add(&lost, 1);
	if (flags & CLONE_THREAD) {
		process->shared = true; /* before the thread runs */
		count(process, BPF_STAT_THREADS, 1);
		if (child) {
			child->slot = task->slot;
			child->serial = task->serial;
		}
		return 0;
	}
	count(process, BPF_STAT_FORKS, 1);
	if (flags & CLONE_VM)
		count(process, BPF_STAT_VFORKS, 1);
	else
		task->fork_copied = true;
	if (child) {
		place(child, new_task, task->serial);
		inherit_areas(child, task);
	}
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *current)
{
	struct bpf_stat_task *task = find_task(current);
	struct bpf_stat_process *process;

	if (!task)
		return 0;
	process = process_of(task);
	if (!process)
		return 0;
	task->pending = NOTHING;
	task->fork_began = 0;
	forget_areas(task);
	bpf_probe_read_kernel_str(process->command, sizeof(process->command), current->comm);
	if (process->state == BPF_STAT_WAITING)
		process->state = BPF_STAT_COUNTING;
	else
		count(process, BPF_STAT_EXECS, 1);
	return 0;
}

/* The faults of a process of which current is the last thread. */
static void count_faults(struct bpf_stat_process *process, struct task_struct *current)
{
	struct task_struct *leader = current->group_leader;
	__u64 minor = current->signal->min_flt + current->min_flt;
	__u64 major = current->signal->maj_flt + current->maj_flt;

	if (leader->pid != current->pid) {
		minor += leader->min_flt;
		major += leader->maj_flt;
	}
	process->counts[BPF_STAT_MINOR_FAULTS] = minor;
	process->counts[BPF_STAT_MAJOR_FAULTS] = major;
}

/* No room for the event: the totals keep what the process counted. */
static void keep_in_rest(const struct bpf_stat_process *process)
{
	struct bpf_stat_process *rest = process_at(0);
	int i;

	__sync_fetch_and_add(&lost, 1);
	if (rest)
		for (i = 0; i < BPF_STAT_COUNTS; i++)
			count(rest, i, process->counts[i]);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *current)
{
	struct bpf_stat_event_end *event;
	struct bpf_stat_process *process;
	struct bpf_stat_task *task;

	if (current->signal->live.counter > 0)
		return 0;
	task = find_task(current);
	if (!task || !task->slot)
		return 0;
	process = process_at(task->slot);
	if (!process || process->serial != task->serial)
		return 0;
	/* Two last threads may come here side by side. */
	if (__sync_lock_test_and_set(&process->state, BPF_STAT_ENDED) == BPF_STAT_ENDED)
		return 0;
	count_faults(process, current);
	bpf_probe_read_kernel_str(process->command, sizeof(process->command),
				  current->group_leader->comm);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (event) {
		event->type = BPF_STAT_EVENT_END;
		event->unused = 0;
		event->process = *process;
		bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	} else {
		keep_in_rest(process);
	}
	process->serial = 0;
	process->state = BPF_STAT_FREE;
	bpf_map_push_elem(&free_slots, &task->slot, 0);
	return 0;
}

static bool makes_task(long number)
{
	return number == NR_CLONE || number == NR_FORK || number == NR_VFORK || number == NR_CLONE3;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long number)
{
	struct bpf_stat_task *task;

	if (!makes_task(number))
		return 0;
	task = find_task(bpf_get_current_task_btf());
	if (task) {
		task->fork_copied = false;
		task->fork_began = bpf_ktime_get_ns();
	}
	return 0;
}

static void report_fork(struct bpf_stat_task *task, struct task_struct *current, __u64 ns)
{
	struct bpf_stat_event_fork *event;

	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&lost, 1);
		return;
	}
	event->type = BPF_STAT_EVENT_FORK;
	event->pid = current->tgid;
	event->serial = task->serial;
	event->ns = ns;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long result)
{
	struct task_struct *current;
	struct bpf_stat_task *task;

	if (!makes_task(regs->orig_ax))
		return 0;
	current = bpf_get_current_task_btf();
	task = bpf_task_storage_get(&tasks, current, NULL, 0);
	if (!task || !task->fork_began)
		return 0;
	if (task->fork_copied && result > 0)
		report_fork(task, current, bpf_ktime_get_ns() - task->fork_began);
	task->fork_began = 0;
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
