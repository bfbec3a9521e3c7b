/* SPDX-License-Identifier: MIT */
/*
 * Making and freeing regions. The window is an ordinary mapping of the full length, of which the
 * kernel gives memory to the pages that are touched; everything else hangs from struct cow_region.
 */
#include <assert.h>

#include "lib/adopt.h"
#include "lib/bypass.h"
#include "lib/helper.h"
#include "lib/process.h"
#include "lib/spill.h"

#define DEFAULT_POOL_LIMIT ((size_t)64 << 20)
#define DEFAULT_TIMEOUT_NS 1000000000ull
#define ADOPTED_FLAGS      (COW_REGION_COPY_AHEAD | COW_REGION_CHECK)
/* The others are about how it was mapped. */
#define KNOWN_FLAGS (COW_REGION_HUGE_PAGES | COW_REGION_SHARED | ADOPTED_FLAGS)

static const struct cow_region_options default_options = COW_REGION_OPTIONS_INIT;

static bool is_power_of_two(size_t value)
{
	return value != 0 && (value & (value - 1)) == 0;
}

static int check_options(const struct cow_region_options *options, struct region_base base)
{
	size_t page = sys_page_size();

	if (options->flags & ~KNOWN_FLAGS)
		return log_refusal("flags 0x%x: 0x%x is unknown", options->flags,
				   options->flags & ~KNOWN_FLAGS);
	if (base.adopt && (options->flags & ~ADOPTED_FLAGS))
		return log_refusal("flags 0x%x: memory to adopt is mapped already, so only "
				   "COW_REGION_COPY_AHEAD and COW_REGION_CHECK can be had",
				   options->flags);
	if ((uintptr_t)options->address % page != 0)
		return log_refusal("address %p does not begin a page of %zu bytes",
				   options->address, page);
	if (options->preimage_limit != 0 && options->preimage_limit < COW_PREIMAGE_LIMIT_MIN)
		return log_refusal("preimage_limit %zu is below COW_PREIMAGE_LIMIT_MIN, %zu",
				   options->preimage_limit, COW_PREIMAGE_LIMIT_MIN);
	if (options->limit_policy < COW_LIMIT_SPILL || options->limit_policy > COW_LIMIT_DROP)
		return log_refusal("limit_policy %d: there is no such policy",
				   (int)options->limit_policy);
	if (options->block != 0 && (!is_power_of_two(options->block) || options->block < page))
		return log_refusal("block %zu is no power of two of at least a page, %zu",
				   options->block, page);
	if (options->trap < COW_TRAP_AUTO || options->trap > COW_TRAP_EXPLICIT)
		return log_refusal("trap %d: there is no such trap", (int)options->trap);
	return 0;
}

/* The memory behind the window: private and anonymous, a file of its own to share, or, for a branch
 * under a trap, the snapshot's image, of which writes make private copies. */
static int open_backing(struct cow_region *region, const struct cow_region_options *options,
			struct cow_snapshot *source, int *ret_fd, int *ret_flags)
{
	bool filled = source && options->trap != COW_TRAP_EXPLICIT;
	int r;

	*ret_fd = -1;
	*ret_flags = MAP_PRIVATE | MAP_ANONYMOUS;
	if (options->flags & COW_REGION_SHARED) {
		r = sys_memfd("cow-region", region->length);
		if (r < 0)
			return r;
		*ret_fd = region->memfd = r;
		*ret_flags = MAP_SHARED;
		region->empty_advice = MADV_REMOVE;
		return filled ? image_fill(source, region->memfd) : 0;
	}
	if (!filled)
		return 0;
	*ret_flags = MAP_PRIVATE;
	region->empty_advice = -1; /* the image would show again */
	return image_get(source, ret_fd);
}

static bool sees_first_touch(enum cow_trap trap)
{
	return trap == COW_TRAP_SIGNAL || trap == COW_TRAP_THREAD;
}

/* The descriptor is the content's, and only the window needs it. */
static int open_content(struct cow_region *region, const struct region_content *content,
			enum cow_trap trap, int *ret_file, int *ret_flags)
{
	region->has_content = true;
	region->empty_advice = -1; /* it would show again */
	*ret_file = -1;
	*ret_flags = MAP_PRIVATE | MAP_ANONYMOUS;
	if (!sees_first_touch(trap))
		return 0;
	*ret_flags = MAP_PRIVATE;
	return content->open(content->context, ret_file);
}

static int map_window(struct cow_region *region, const struct cow_region_options *options,
		      struct region_base base, int *ret_file)
{
	int flags, r;
	void *address;

	r = base.content ? open_content(region, base.content, options->trap, ret_file, &flags) :
			   open_backing(region, options, base.source, ret_file, &flags);
	if (r < 0)
		return r;
	flags |= MAP_NORESERVE | (options->address ? MAP_FIXED_NOREPLACE : 0);
	r = sys_map(options->address, region->length, PROT_READ | PROT_WRITE, flags, *ret_file,
		    &address);
	if (r < 0)
		return r;
	/* Before 4.17 the kernel takes the address for a hint. */
	if (options->address && address != options->address) {
		sys_unmap(address, region->length);
		return -EEXIST;
	}
	region->base = address;
	/* What a layer above has not brought in yet would read as zero in a child. */
	if ((options->flags & COW_REGION_SHARED) || (base.content && *ret_file >= 0))
		r = sys_advise(address, region->length, MADV_DONTFORK);
	if (r == 0 && (options->flags & COW_REGION_HUGE_PAGES))
		(void)sys_advise(address, region->length, MADV_HUGEPAGE); /* a wish, not a need */
	if (r == 0 && base.content && !sees_first_touch(options->trap))
		r = base.content->map(base.content->context, region->base);
	return r;
}

/* What was written is known from the start, so that a save need not write the rest. */
static int start_with_content(struct cow_region *region, const struct region_content *content)
{
	const struct trap_source source = { content->fill, content->context };

	if (!region->trap)
		return 0;
	if (sees_first_touch(region->trap_kind))
		trap_set_source(region->trap, &source);
	return trap_start(region->trap);
}

static int set_up_limit(struct cow_region *region, const struct cow_region_options *options)
{
	region->limit_policy = options->limit_policy;
	region->limit_timeout_ns = options->limit_timeout_ns ?: DEFAULT_TIMEOUT_NS;
	region->cut_timeout_ns = options->cut_timeout_ns ?: DEFAULT_TIMEOUT_NS;
	if (options->limit_policy != COW_LIMIT_SPILL || !options->spill_directory)
		return 0;
	return spill_new(options->spill_directory, sys_page_size(), &region->spill);
}

static void free_attachments(struct cow_region *region)
{
	struct attachment *attachment = atomic_load(&region->attachments);

	while (attachment) {
		struct attachment *next = attachment->next;

		attachment->free(attachment);
		attachment = next;
	}
}

/* Whatever was set up, in reverse. */
static void region_destroy(struct cow_region *region)
{
	adopted_release(region);
	trap_free(region->trap);
	adopted_remove(region);
	bypass_free(region->bypass);
	space_destroy(&region->space);
	spill_free(region->spill);
	if (region->base && !region->adopted)
		sys_unmap(region->base, region->length);
	free_attachments(region);
	sys_close(region->memfd);
	pthread_mutex_destroy(&region->cut_mutex);
	sys_free(region);
}

/* What a page is that was never written: under a trap, see each back end's start. */
static enum base_kind base_kind(const struct cow_region_options *options, struct region_base base)
{
	if (options->trap == COW_TRAP_MPROTECT || base.content)
		return BASE_WINDOW;
	if (options->trap != COW_TRAP_EXPLICIT)
		return BASE_ZERO;
	return base.adopt ? BASE_WINDOW : base.source ? BASE_SOURCE : BASE_ZERO;
}

static void want_frames(void *context)
{
	struct cow_region *region = context;

	if (region->tune.frames)
		helper_wake(region, HELP_FRAMES);
}

static int init_trap(struct cow_region *region, enum cow_trap kind, int file)
{
	const struct trap_policy policy = {
		.is_nested = bracket_is_any_held,
		.make_room = limit_make_room_trapped,
		.want_frames = want_frames,
		.context = region,
	};
	int r = 0;

	if (kind == COW_TRAP_SIGNAL)
		r = trap_new_signal(&region->space, &policy, file, &region->trap);
	else if (kind == COW_TRAP_THREAD)
		r = trap_new_thread(&region->space, &policy, file, &region->trap);
	else if (kind == COW_TRAP_MPROTECT)
		r = trap_new_mprotect(&region->space, &policy, &region->trap);
	if (region->trap) {
		region->space.mmu = &region->trap->mmu;
		region->trap->exact = !region->tune.cost;
		region->trap->rounds = region->tune.rounds;
	}
	region->trap_kind = kind;
	if (r == 0 || r == -ENOMEM || r == -EMFILE || r == -ENFILE)
		return r;
	log_message(LOG_ERR,
		    "libcow: the trap cannot be had here (%s): allow userfaultfd "
		    "(vm.unprivileged_userfaultfd, or the container's seccomp profile) and "
		    "/proc/self/pagemap, or use COW_TRAP_MPROTECT or COW_TRAP_EXPLICIT",
		    strerror(-r));
	return -EOPNOTSUPP;
}

/* Beyond this a trap takes as long as many a writer would mind. */
#define BLOCK_PAGES_MAX 64u

static uint64_t block_pages(const struct cow_region_options *options)
{
	uint64_t pages = options->block / sys_page_size();

	return pages == 0 || pages > BLOCK_PAGES_MAX ? BLOCK_PAGES_MAX : pages;
}

static int init_space(struct cow_region *region, const struct cow_region_options *options,
		      struct region_base base)
{
	struct space_config config = {
		.page_shift = (unsigned)__builtin_ctzl(sys_page_size()),
		.window = region->base,
		.pages = region->length / sys_page_size(),
		.base = base_kind(options, base),
		.source = base.source ? &base.source->snap : NULL,
		.mmu = &mmu_explicit,
		.limit = options->preimage_limit,
		.idle_limit = options->pool_limit ?: DEFAULT_POOL_LIMIT,
		.spill = &spill_file_ops,
		.spill_context = region->spill,
		.block_pages = region->tune.blocks ? block_pages(options) : 1,
		.huge = region->tune.huge && (options->flags & COW_REGION_HUGE_PAGES),
	};

	return space_init(&region->space, &config);
}

/* Once, and when it comes out differently: it is the same for thousands of regions. */
static void report_choice(enum cow_trap trap)
{
	static _Atomic int reported = COW_TRAP_AUTO;

	if (!log_is_heard() || atomic_exchange(&reported, (int)trap) == (int)trap)
		return;
	if (trap == COW_TRAP_MPROTECT)
		log_message(LOG_INFO,
			    "libcow: COW_TRAP_AUTO chose the mprotect trap: userfaultfd, or "
			    "/proc/self/pagemap, is not to be had; see: cow probe");
	else
		log_message(LOG_INFO, "libcow: COW_TRAP_AUTO chose the %s trap",
			    trap == COW_TRAP_THREAD ? "thread" : "signal");
}

static int choose_trap(enum cow_trap *ret_trap)
{
	int r = probe_auto(ret_trap);

	if (r == 0)
		report_choice(*ret_trap);
	return r;
}

static int round_length(size_t length, size_t *ret_length)
{
	size_t page = sys_page_size();

	if (length == 0 || length > REGION_LENGTH_MAX)
		return log_refusal("a region has 1 byte to 16 TiB, not %zu bytes", length);
	*ret_length = (length + page - 1) & ~(page - 1);
	return 0;
}

/* The caller has it pinned already. */
static void keep_source(struct cow_region *region, struct cow_snapshot *source)
{
	region->source = cow_snapshot_ref(source);
	snapshot_pin(source);
	atomic_fetch_add(&source->branches, 1);
}

/* Without a trap there is nothing to be spared. */
static int copy_ahead(struct cow_region *region)
{
	return region->trap ? ahead_new(region->space.pages, &region->trap->ahead) : 0;
}

/* What can fail; region_destroy() undoes whatever was done of it. */
static int set_up(struct cow_region *region, const struct cow_region_options *options,
		  struct region_base base)
{
	int file = -1;
	int r;

	region->tune = tune_read();
	r = process_mark(&region->process);
	if (r == 0)
		r = set_up_limit(region, options);
	if (r < 0)
		return r;
	r = base.adopt ? adopted_add(region, base.adopt) : map_window(region, options, base, &file);
	if (r == 0)
		r = init_space(region, options, base);
	if (r == 0)
		r = init_trap(region, options->trap, base.content ? -1 : file);
	if (r == 0 && base.adopt)
		r = adopted_try(region);
	if (r == 0 && bypass_is_wanted(options->flags))
		r = bypass_new(region);
	if (r == 0 && base.content)
		r = start_with_content(region, base.content);
	return r == 0 && (options->flags & COW_REGION_COPY_AHEAD) ? copy_ahead(region) : r;
}

int region_make(size_t length, const struct cow_region_options *given, struct region_base base,
		struct cow_region **ret_region)
{
	struct cow_region_options options = default_options;
	struct cow_region *region;
	int r;

	if (!ret_region)
		return -EINVAL;
	if (given) {
		r = options_read(&options, sizeof(options), sizeof(options), given);
		if (r < 0)
			return r;
	}
	if (base.adopt)
		options.address = NULL;
	r = check_options(&options, base);
	if (r < 0)
		return r;
	r = round_length(length, &length);
	if (r == 0 && options.trap == COW_TRAP_AUTO)
		r = choose_trap(&options.trap);
	if (r < 0)
		return r;
	region = sys_alloc(sizeof(*region));
	if (!region)
		return -ENOMEM;
	region->memfd = -1;
	region->empty_advice = MADV_DONTNEED;
	region->length = length;
	atomic_init(&region->refs, 1);
	pthread_mutex_init(&region->cut_mutex, NULL);
	r = set_up(region, &options, base);
	if (r < 0) {
		region_destroy(region);
		return r;
	}
	if (base.source)
		keep_source(region, base.source);
	*ret_region = region;
	return 0;
}

int cow_region_new(size_t length, const struct cow_region_options *options,
		   struct cow_region **ret_region)
{
	return region_make(length, options, (struct region_base){ 0 }, ret_region);
}

struct cow_region *region_get(struct cow_region *region)
{
	atomic_fetch_add(&region->refs, 1);
	return region;
}

/* A branch's end may be that of its source, and so on: a loop, since nothing bounds how deep they
 * go. */
void region_put(struct cow_region *region)
{
	while (region && atomic_fetch_sub(&region->refs, 1) == 1) {
		struct cow_snapshot *source = region->source;

		region_destroy(region);
		region = NULL;
		if (source) {
			atomic_fetch_sub(&source->branches, 1);
			snapshot_unpin(source);
			region = snapshot_drop(source);
		}
	}
}

void cow_region_free(struct cow_region *region)
{
	if (check_region(region) < 0)
		return;
	if (region->helped)
		helper_remove(region);
	snapshot_unref_due(region);
	region_put(region);
}

void *cow_region_get_base(const struct cow_region *region)
{
	return region ? region->base : NULL;
}

size_t cow_region_get_length(const struct cow_region *region)
{
	return region ? region->length : 0;
}

int cow_region_arm(struct cow_region *region)
{
	int r = check_region(region);

	if (r == 0 && region->trap)
		r = trap_arm_ahead(region->trap);
	return r;
}
