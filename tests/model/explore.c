/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/host.h"
#include "tests/model/explore.h"

#define STACK_BYTES  6144u
#define SHARED_BYTES 16384u
#define HEAP_BYTES   32768u
#define HEAP_BLOCKS  8u
#define FINISHER     MODEL_THREADS /* the coroutine of start and finish */

enum status { RUNNABLE, ASLEEP, ENDED };

struct coroutine {
	unsigned char *sp;      /* what is above it on the stack is in use */
	_Atomic uint32_t *word; /* ASLEEP: on what */
	const char *where;      /* the step that it takes next */
	uint8_t status;
	bool may_time_out, timed_out;
#if !defined(__x86_64__)
	ucontext_t context;
#endif
};

/* Everything that makes up a state, and nothing else. */
static struct arena {
	struct coroutine coroutines[MODEL_THREADS + 1];
	size_t heap_used;
	struct block {
		size_t offset, bytes; /* bytes 0: none */
		bool used;
	} blocks[HEAP_BLOCKS];
	_Alignas(64) unsigned char shared[SHARED_BYTES];
	_Alignas(8192) unsigned char heap[HEAP_BYTES];
	_Alignas(64) unsigned char stacks[MODEL_THREADS + 1][STACK_BYTES];
} arena;

static struct {
	const struct model_program *program;
	const char *mutant;
	unsigned current; /* MODEL_NOBODY: the explorer itself */
	unsigned acting;
	bool starting; /* in start(), where the code is never a mutant */
	bool failed;
	char message[256];
	void *own_sp;
#if !defined(__x86_64__)
	ucontext_t own_context;
#endif
} run = { .current = MODEL_NOBODY };

/* --- coroutines --- */

#if defined(__x86_64__)
/* Not swapcontext(), which makes a system call each time. */
void model_switch(void **save_sp, void *load_sp);
__asm__(".text\n"
	".globl model_switch\n"
	".hidden model_switch\n"
	".type model_switch, @function\n"
	"model_switch:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size model_switch, . - model_switch\n");
#endif

static unsigned char *stack_top(unsigned thread)
{
	return arena.stacks[thread] + STACK_BYTES;
}

/* Back to the explorer. */
static void leave(void)
{
	struct coroutine *me = &arena.coroutines[run.current];

#if defined(__x86_64__)
	model_switch((void **)&me->sp, run.own_sp);
#else
	me->sp = __builtin_frame_address(0);
	me->sp -= 1024; /* the frames of what saves the registers */
	/* cppcheck-suppress swapcontextCalled ; a thread is no coroutine */
	swapcontext(&me->context, &run.own_context);
#endif
}

static void coroutine_main(void)
{
	unsigned me = run.current;

	if (me < MODEL_THREADS)
		run.program->body(me);
	arena.coroutines[me].status = ENDED;
	leave();
	abort();
}

static void (*finisher_does)(void);

static void finisher_main(void)
{
	finisher_does();
	arena.coroutines[FINISHER].status = ENDED;
	leave();
	abort();
}

static void coroutine_init(unsigned thread, void (*entry)(void))
{
	struct coroutine *c = &arena.coroutines[thread];

	*c = (struct coroutine){ .where = "begin" };
	memset(arena.stacks[thread], 0, STACK_BYTES);
#if defined(__x86_64__)
	{
		/* Six registers, the entry, and a return address, unused: it aligns the stack. */
		uintptr_t *frame = (uintptr_t *)(void *)stack_top(thread) - 8;

		frame[6] = (uintptr_t)entry;
		c->sp = (unsigned char *)frame;
	}
#else
	/* cppcheck-suppress getcontextCalled ; a thread is no coroutine */
	getcontext(&c->context);
	c->context.uc_stack.ss_sp = arena.stacks[thread];
	c->context.uc_stack.ss_size = STACK_BYTES;
	/* cppcheck-suppress makecontextCalled ; a thread is no coroutine */
	makecontext(&c->context, entry, 0);
	c->sp = arena.stacks[thread];
#endif
}

/* What was left on the dead part of the stack must not leak into locals that are not set yet: it
 * would make equal states look different. */
static void resume(unsigned thread)
{
	struct coroutine *c = &arena.coroutines[thread];
	unsigned char *floor = arena.stacks[thread];

	if (c->status == ASLEEP) {
		c->status = RUNNABLE;
		c->timed_out = true;
	}
	run.current = run.acting = thread;
#if defined(__x86_64__)
	memset(floor, 0, (size_t)(c->sp - floor));
	model_switch(&run.own_sp, c->sp);
#else
	/* cppcheck-suppress swapcontextCalled ; a thread is no coroutine */
	swapcontext(&run.own_context, &c->context);
#endif
	run.current = MODEL_NOBODY;
	for (unsigned i = 0; i < 64; i++)
		if (floor[i] != 0 && !run.failed)
			abort(); /* STACK_BYTES is too small */
	if (c->status == ENDED)
		c->sp = stack_top(thread);
}

/* --- what the program under test calls --- */

void *model_shared(void)
{
	return arena.shared;
}

unsigned model_thread(void)
{
	return run.current;
}

void model_act_as(unsigned thread)
{
	run.acting = thread;
}

size_t model_heap_blocks(void)
{
	size_t used = 0;

	for (unsigned i = 0; i < HEAP_BLOCKS; i++)
		used += arena.blocks[i].used;
	return used;
}

void model_fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(run.message, sizeof(run.message), format, arguments);
	va_end(arguments);
	run.failed = true;
	if (run.current == MODEL_NOBODY) {
		fprintf(stderr, "%s\n", run.message);
		abort();
	}
	leave();
	abort();
}

/* Of assert(): takes the place of the C library's, which ends the process. */
void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function)
{
	const char *name = strrchr(file, '/');

	model_fail("%s:%u: %s: assertion failed: %s", name ? name + 1 : file, line, function,
		   assertion);
}

void model_step(const char *where)
{
	if (run.current >= FINISHER)
		return;
	arena.coroutines[run.current].where = where;
	leave();
}

bool model_mutant(const char *name)
{
	return run.mutant && !run.starting && strcmp(run.mutant, name) == 0;
}

void model_poison(void *memory, size_t bytes)
{
	memset(memory, 0xdb, bytes);
}

/* --- core/host.h --- */

static void *block_give(struct block *block)
{
	block->used = true;
	return arena.heap + block->offset;
}

void *host_map(size_t bytes, size_t align)
{
	for (unsigned i = 0; i < HEAP_BLOCKS; i++) {
		struct block *block = &arena.blocks[i];

		if (block->used)
			continue;
		if (block->bytes == 0) {
			size_t offset = (arena.heap_used + align - 1) & ~(align - 1);

			assert(offset + bytes <= HEAP_BYTES);
			*block = (struct block){ .offset = offset, .bytes = bytes };
			arena.heap_used = offset + bytes;
		}
		if (block->bytes == bytes && block->offset % align == 0)
			return block_give(block);
	}
	return NULL;
}

void host_unmap(void *memory, size_t bytes)
{
	memset(memory, 0, bytes);
	for (unsigned i = 0; i < HEAP_BLOCKS; i++)
		if (arena.blocks[i].used && arena.heap + arena.blocks[i].offset == memory)
			arena.blocks[i].used = false;
}

void host_advise_huge(void *memory, size_t bytes)
{
	(void)memory;
	(void)bytes;
}

void host_populate(void *memory, size_t bytes)
{
	(void)memory;
	(void)bytes;
}

bool host_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
	struct coroutine *me = &arena.coroutines[run.current];

	if (atomic_load(word) != value)
		return true;
	if (run.current == FINISHER)
		model_fail("something is still held at the end");
	me->where = "sleep";
	me->word = word;
	me->status = ASLEEP;
	me->may_time_out = deadline_ns == MODEL_SOON;
	leave();
	if (!me->timed_out)
		return true;
	me->timed_out = false;
	return false;
}

void host_wake(_Atomic uint32_t *word)
{
	for (unsigned i = 0; i < MODEL_THREADS; i++) {
		struct coroutine *c = &arena.coroutines[i];

		if (c->status != ASLEEP || c->word != word)
			continue;
		c->status = RUNNABLE;
		c->word = NULL;
		c->where = "wake up";
	}
}

void host_pause(void)
{
}

uint64_t host_now(void)
{
	return 0;
}

unsigned host_shard(void)
{
	return run.acting % HOST_SHARDS;
}

/* --- states --- */

struct bytes {
	unsigned char *data;
	size_t used, room;
};

static void bytes_add(struct bytes *bytes, const void *data, size_t length)
{
	if (!bytes->data || bytes->used + length > bytes->room) {
		bytes->room = 2 * (bytes->used + length) + 65536;
		bytes->data = realloc(bytes->data, bytes->room);
		assert(bytes->data);
	}
	memcpy(bytes->data + bytes->used, data, length);
	bytes->used += length;
}

static size_t head_bytes(void)
{
	return offsetof(struct arena, shared) + run.program->shared_bytes;
}

/* The head says how long the rest is. */
static void state_save(struct bytes *bytes)
{
	bytes_add(bytes, &arena, head_bytes());
	bytes_add(bytes, arena.heap, arena.heap_used);
	for (unsigned i = 0; i < run.program->threads; i++) {
		unsigned char *sp = arena.coroutines[i].sp;

		bytes_add(bytes, sp, (size_t)(stack_top(i) - sp));
	}
}

static void state_restore(const unsigned char *data)
{
	size_t heap_before = arena.heap_used;

	memcpy(&arena, data, head_bytes());
	data += head_bytes();
	memcpy(arena.heap, data, arena.heap_used);
	if (heap_before > arena.heap_used)
		memset(arena.heap + arena.heap_used, 0, heap_before - arena.heap_used);
	data += arena.heap_used;
	for (unsigned i = 0; i < run.program->threads; i++) {
		unsigned char *sp = arena.coroutines[i].sp;
		size_t live = (size_t)(stack_top(i) - sp);

		memcpy(sp, data, live);
		data += live;
	}
}

/* --- the set of states seen, numbered in the order in which they were met --- */

struct seen {
	XXH128_hash_t *hashes; /* by number */
	uint32_t *slots;       /* number + 1, or 0 */
	size_t mask;
	uint32_t count, room;
};

static void seen_place(struct seen *seen, uint32_t number)
{
	size_t at = seen->hashes[number].low64 & seen->mask;

	while (seen->slots[at] != 0)
		at = (at + 1) & seen->mask;
	seen->slots[at] = number + 1;
}

static void seen_grow(struct seen *seen)
{
	seen->room = seen->room ? 2 * seen->room : 1u << 16;
	seen->mask = 2 * (size_t)seen->room - 1;
	free(seen->slots);
	seen->slots = calloc(seen->mask + 1, sizeof(seen->slots[0]));
	seen->hashes = realloc(seen->hashes, seen->room * sizeof(seen->hashes[0]));
	assert(seen->slots && seen->hashes);
	for (uint32_t i = 0; i < seen->count; i++)
		seen_place(seen, i);
}

/* true: it is new. */
static bool seen_add(struct seen *seen, XXH128_hash_t hash, uint32_t *ret_number)
{
	size_t at;

	if (seen->count == seen->room)
		seen_grow(seen);
	for (at = hash.low64 & seen->mask; seen->slots[at] != 0; at = (at + 1) & seen->mask) {
		*ret_number = seen->slots[at] - 1;
		if (XXH128_isEqual(seen->hashes[*ret_number], hash))
			return false;
	}
	*ret_number = seen->count;
	seen->hashes[seen->count++] = hash;
	seen->slots[at] = *ret_number + 1;
	return true;
}

/* --- the search --- */

struct node {
	uint32_t number;
	uint8_t next; /* the thread to try next; the one before was the last choice */
	size_t at;    /* where its state is saved */
};

struct edge {
	uint32_t from, to;
};

struct search {
	struct seen seen;
	struct bytes saved, nodes, edges, ends;
	bool check_ends;
	struct model_result *result;
};

static struct node *top_node(struct search *search)
{
	return (struct node *)(void *)(search->nodes.data + search->nodes.used) - 1;
}

static size_t depth(const struct search *search)
{
	return search->nodes.used / sizeof(struct node);
}

static bool can_run(unsigned thread)
{
	const struct coroutine *c = &arena.coroutines[thread];

	return c->status == RUNNABLE || (c->status == ASLEEP && c->may_time_out);
}

static bool all_ended(void)
{
	for (unsigned i = 0; i < run.program->threads; i++)
		if (arena.coroutines[i].status != ENDED)
			return false;
	return true;
}

static bool nobody_can_run(void)
{
	for (unsigned i = 0; i < run.program->threads; i++)
		if (can_run(i))
			return false;
	return true;
}

static void do_alone(void (*what)(void))
{
	finisher_does = what;
	coroutine_init(FINISHER, finisher_main);
	resume(FINISHER);
	memset(&arena.coroutines[FINISHER], 0, sizeof(arena.coroutines[FINISHER]));
}

static void say_deadlock(void)
{
	char text[160] = "";

	for (unsigned i = 0; i < run.program->threads; i++)
		if (arena.coroutines[i].status == ASLEEP)
			snprintf(text + strlen(text), sizeof(text) - strlen(text), " %u", i);
	snprintf(run.message, sizeof(run.message), "deadlock: asleep for ever:%s", text);
	run.failed = true;
}

/* Looks at the state that the arena is in now. */
static void meet(struct search *search, bool has_parent, uint32_t parent)
{
	size_t at = search->saved.used, bytes;
	struct node node;
	bool new;

	run.program->scrub();
	state_save(&search->saved);
	bytes = search->saved.used - at;
	if (bytes > search->result->state_bytes)
		search->result->state_bytes = bytes;
	new = seen_add(&search->seen, XXH3_128bits(search->saved.data + at, bytes), &node.number);
	if (search->check_ends && has_parent)
		bytes_add(&search->edges, &(struct edge){ parent, node.number },
			  sizeof(struct edge));
	if (new &&all_ended()) {
		search->result->ends++;
		bytes_add(&search->ends, &node.number, sizeof(node.number));
		do_alone(run.program->finish);
		new = false;
	} else if (new &&nobody_can_run()) {
		say_deadlock();
	}
	if (!new) {
		search->saved.used = at;
		return;
	}
	node.next = 0;
	node.at = at;
	bytes_add(&search->nodes, &node, sizeof(node));
	if (depth(search) > search->result->depth)
		search->result->depth = (unsigned)depth(search);
}

/* One transition, or one step back. */
static void search_on(struct search *search)
{
	struct node *node = top_node(search);
	uint32_t number = node->number;
	unsigned thread;

	state_restore(search->saved.data + node->at);
	for (thread = node->next; thread < run.program->threads && !can_run(thread); thread++)
		;
	if (thread == run.program->threads) {
		search->saved.used = node->at;
		search->nodes.used -= sizeof(*node);
		return;
	}
	node->next = (uint8_t)(thread + 1);
	search->result->transitions++;
	resume(thread);
	if (!run.failed)
		meet(search, true, number);
}

static void begin(const struct model_program *program, const char *mutant)
{
	memset(&arena, 0, sizeof(arena));
	run.program = program;
	run.mutant = mutant;
	run.failed = false;
	run.message[0] = '\0';
	assert(program->threads <= MODEL_THREADS && program->shared_bytes <= SHARED_BYTES);
	run.starting = true;
	do_alone(program->start);
	run.starting = false;
	for (unsigned i = 0; i < program->threads; i++)
		coroutine_init(i, coroutine_main);
}

static void note_path(struct search *search)
{
	struct model_result *result = search->result;
	size_t length = 0;

	for (size_t i = 0; i < depth(search) && length + 1 < sizeof(result->path); i++) {
		const struct node *node = (const struct node *)(void *)search->nodes.data + i;

		if (node->next > 0)
			result->path[length++] = (char)('0' + node->next - 1);
	}
	result->path[length] = '\0';
	snprintf(result->message, sizeof(result->message), "%s", run.message);
	result->failed = true;
}

/* Backwards from the ends along all transitions; what is not met is stuck. */
static uint64_t count_stuck(const struct search *search)
{
	const struct edge *edges = (const struct edge *)(void *)search->edges.data;
	const uint32_t *ends = (const uint32_t *)(void *)search->ends.data;
	size_t edge_count = search->edges.used / sizeof(struct edge);
	uint32_t states = search->seen.count, head = 0, tail = 0;
	uint32_t *first = calloc((size_t)states + 2, sizeof(*first));
	uint32_t *from = malloc((edge_count + 1) * sizeof(*from));
	uint32_t *queue = malloc(((size_t)states + 1) * sizeof(*queue));
	unsigned char *met = calloc((size_t)states + 1, 1);

	assert(first && from && queue && met);
	for (size_t i = 0; i < edge_count; i++)
		first[edges[i].to + 2]++;
	for (uint32_t i = 2; i < states + 2; i++)
		first[i] += first[i - 1];
	for (size_t i = 0; i < edge_count; i++)
		from[first[edges[i].to + 1]++] = edges[i].from;
	for (size_t i = 0; i < search->ends.used / sizeof(*ends); i++) {
		met[ends[i]] = 1;
		queue[tail++] = ends[i];
	}
	while (head < tail) {
		uint32_t state = queue[head++];

		for (uint32_t i = first[state]; i < first[state + 1]; i++) {
			if (met[from[i]])
				continue;
			met[from[i]] = 1;
			queue[tail++] = from[i];
		}
	}
	free(first);
	free(from);
	free(queue);
	free(met);
	return states - tail;
}

/* --- crashes are failures of the state, not of the checker --- */

static unsigned char signal_stack[65536];

static void on_crash(int signal)
{
	if (run.current == MODEL_NOBODY) {
		struct sigaction plain = { .sa_handler = SIG_DFL };

		sigaction(signal, &plain, NULL);
		raise(signal);
		return;
	}
	model_fail("crash: %s", signal == SIGSEGV ? "SIGSEGV" :
				signal == SIGBUS  ? "SIGBUS" :
						    "a signal");
}

static void catch_crashes(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	stack_t stack = { .ss_sp = signal_stack, .ss_size = sizeof(signal_stack) };
	/* The handler does not return but switches away: the signal must not stay blocked. */
	struct sigaction action = { .sa_handler = on_crash, .sa_flags = SA_ONSTACK | SA_NODEFER };

	sigaltstack(&stack, NULL);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
}

void model_explore(const struct model_program *program, const char *mutant, uint64_t most_states,
		   bool check_ends, struct model_result *result)
{
	struct search search = { .check_ends = check_ends, .result = result };

	*result = (struct model_result){ 0 };
	catch_crashes();
	begin(program, mutant);
	if (!run.failed)
		meet(&search, false, 0);
	while (!run.failed && search.nodes.used > 0 && search.seen.count < most_states)
		search_on(&search);
	result->states = search.seen.count;
	if (run.failed)
		note_path(&search);
	else
		result->complete = search.nodes.used == 0;
	if (check_ends && result->complete)
		result->stuck = count_stuck(&search);
	free(search.seen.hashes);
	free(search.seen.slots);
	free(search.saved.data);
	free(search.nodes.data);
	free(search.edges.data);
	free(search.ends.data);
}

void model_replay(const struct model_program *program, const char *mutant, const char *path,
		  const char *const names[])
{
	unsigned last = MODEL_NOBODY;

	catch_crashes();
	begin(program, mutant);
	for (; *path && !run.failed; path++) {
		unsigned thread = (unsigned)(*path - '0');

		if (thread >= program->threads || !can_run(thread)) {
			printf("# thread %c cannot run here\n", *path);
			return;
		}
		printf("%s%s",
		       thread == last       ? "" :
		       last == MODEL_NOBODY ? "# " :
					      "\n# ",
		       thread == last ? "; " : "");
		if (thread != last)
			printf("%u %s: ", thread, names[thread]);
		printf("%s", arena.coroutines[thread].where);
		last = thread;
		program->scrub();
		resume(thread);
	}
	if (!run.failed && all_ended())
		do_alone(program->finish);
	else if (!run.failed && nobody_can_run())
		say_deadlock();
	printf("\n# => %s\n", run.failed ? run.message : "nothing wrong");
}
