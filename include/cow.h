/* SPDX-License-Identifier: MIT */
/*
 * libcow: consistent snapshots of live, writable memory.
 *
 * A program keeps its state in a region. A snapshot of the region is taken in microseconds,
 * whatever its size, while other threads go on writing; it is then read, mapped, compared,
 * branched or rolled back to for as long as it is held.
 *
 * Caveats first
 * - Under the explicit trap a write counts only when it is bracketed: cow_region_write_begin()
 *   before, cow_region_write_end() after; or cow_region_write(), or cow_region_touch() where no
 *   other thread cuts. A store without one changes every snapshot that still reads the page from
 *   the live region.
 * - Under the other traps any store counts. But the kernel's own writes into a region (read(2),
 *   recv(2)) fail with EFAULT under the signal and the mprotect trap, and under the thread trap
 *   where the process may not have the kernel's faults served: bracket them.
 * - No trap sees writes to pages that the kernel has pinned (io_uring's registered buffers,
 *   O_DIRECT under way, RDMA), writes through a second mapping of the same memory, nor memory
 *   that was replaced under it (mremap(), mmap(MAP_FIXED), MADV_DONTNEED): use
 *   cow_region_discard(), and have nothing in flight across a cut.
 * - The signal trap takes SIGBUS, the mprotect trap SIGSEGV: a thread that blocks the signal and
 *   writes is killed. What is not ours goes to the handler that was there before.
 * - A branch under the explicit trap is read through cow_region_read() until a page of it was
 *   opened for writing: its plain memory shows zeroes where nothing was opened yet.
 * - After fork() the child has the region as plain private memory, and every call on it, or on a
 *   snapshot of it, returns -ECHILD. Regions with COW_REGION_SHARED, and views, are absent there.
 *   It may make regions of its own, whatever the parent's other threads were at.
 * - A snapshot that another thread takes may fall between any two stores. What has to be seen
 *   together, such as an entry and the counter that counts it, stands in one bracket, under every
 *   trap.
 * - Brackets and reads of live data follow the rules of any shared memory: libcow orders writers
 *   against snapshots, not writers against each other.
 *
 * Conventions of every function below, unless its comment says otherwise
 * - A fallible call returns 0 or a negative errno; what ret_ points to is written only on success.
 * - Any thread may call any function at any time on objects it holds; no function is safe in a
 *   signal handler.
 * - Offsets and lengths are in bytes; ranges need not be aligned. What lies outside the region
 *   gives -ERANGE. NULL where an object or a result is required gives -EINVAL.
 * - A struct that the caller fills or receives begins with its size, set by its _INIT macro. A
 *   size of zero, or smaller than the first release's, gives -EINVAL; a larger one is accepted
 *   when the part that this library does not know is zero, else -E2BIG.
 * - Children pin their parents: a freed region lives on inside until its last snapshot is gone,
 *   a snapshot until its last branch is gone.
 */
#ifndef COW_H
#define COW_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COW_VERSION_MAJOR 0
#define COW_VERSION_MINOR 1
#define COW_VERSION_PATCH 0

/* What the _INIT macros are made of: everything zero but the size. */
#ifdef __cplusplus
#define COW_INIT_(type)                     \
	([]() -> type {                     \
		type value = type();        \
		value.size = sizeof(value); \
		return value;               \
	}())
#else
#define COW_INIT_(type)                     \
	{                                   \
		.size = sizeof(struct type) \
	}
#endif

#if defined(__GNUC__)
#define COW_API __attribute__((visibility("default")))
#else
#define COW_API
#endif

struct cow_region;   /* a range of live, writable memory whose past can be kept */
struct cow_snapshot; /* an immutable point-in-time state of a region, reference counted */

/* How the first write to a page is noticed. */
enum cow_trap {
	COW_TRAP_AUTO,     /* thread if it may serve the kernel's own faults, else signal, else
	                      mprotect. Tried at each region, which takes some 50 us: name one where
	                      regions are made by the thousand */
	COW_TRAP_SIGNAL,   /* userfaultfd, SIGBUS in the writing thread; bracket the kernel's
	                      writes */
	COW_TRAP_THREAD,   /* userfaultfd, handler threads: transparent for system calls, too, with
	                      CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1 */
	COW_TRAP_MPROTECT, /* mprotect() and SIGSEGV: where userfaultfd is forbidden (containers).
	                      A run of pages is a mapping to the kernel: see vm.max_map_count */
	COW_TRAP_EXPLICIT, /* no trap: the caller brackets its writes; a snapshot is O(1) */
};

/* What happens when preimage_limit is reached. A bracket can say no, so it loses nothing: where a
 * policy comes to its end it returns -EAGAIN, with the region's contents as they were. A store
 * under a trap cannot, so there every policy goes on as DROP, and where that finds none the oldest
 * snapshot goes all the same: its readers get -ESTALE, its view raises SIGBUS. */
enum cow_limit_policy {
	COW_LIMIT_SPILL, /* default: the oldest pre-images move to an unlinked file in
	                    spill_directory; without a directory, or space there, as BLOCK */
	COW_LIMIT_BLOCK, /* writers wait for an unref to free frames, at most limit_timeout_ns
	                    (0: 1 s) */
	COW_LIMIT_DROP,  /* the oldest snapshot that is neither mapped nor branched is given up:
	                    its readers get -ESTALE */
};

/* Flags of struct cow_region_options.
 *
 * HUGE_PAGES: transparent huge pages are advised for the region's memory.
 *
 * SHARED: the region is backed by a memfd. It is absent in a fork()ed child, whose fork() is the
 * faster for it.
 *
 * COPY_AHEAD: after each snapshot a thread of the library keeps the old contents of the pages that
 * were written before it, so that writing them again does not trap. Under a trap, for programs that
 * write the same pages between one snapshot and the next.
 *
 * CHECK: writes are found that no trap and no bracket notices. For tests, since a cut then reads
 * all that was written; COW_CHECK=1 in the environment sets it everywhere. */
#define COW_REGION_HUGE_PAGES 0x1u
#define COW_REGION_SHARED     0x2u
#define COW_REGION_COPY_AHEAD 0x4u
#define COW_REGION_CHECK      0x8u

struct cow_region_options {
	size_t size;
	enum cow_trap trap;
	void *address;  /* wanted base address, page aligned; NULL for any; -EEXIST where taken */
	uint32_t flags; /* COW_REGION_...; unknown bits give -EINVAL */
	size_t preimage_limit; /* most bytes of memory for the pre-images of all snapshots of the
			          region, with their metadata and idle frames; 0: no limit; else at
			          least COW_PREIMAGE_LIMIT_MIN */
	enum cow_limit_policy limit_policy;
	uint64_t limit_timeout_ns;   /* how long BLOCK waits; 0: 1 s */
	uint64_t cut_timeout_ns;     /* how long a cut waits for open brackets before it gives
	                              -ETIMEDOUT; 0: 1 s */
	const char *spill_directory; /* for SPILL; on a disk: tmpfs is refused with -EINVAL */
	size_t block;      /* most bytes opened by one trap, a power of two of at least a page; 0:
			      adaptive; the explicit trap opens what the bracket names */
	size_t pool_limit; /* most bytes of idle frames kept for reuse; 0: 64 MiB */
};
#define COW_REGION_OPTIONS_INIT COW_INIT_(cow_region_options)
#define COW_PREIMAGE_LIMIT_MIN  ((size_t)256 << 10)

/* Makes a region of at least length bytes, rounded up to whole pages, all zero. Only addresses are
 * reserved: memory and metadata follow the pages that are written. options may be NULL for the
 * defaults. The caller owns the region and frees it with cow_region_free().
 * -EINVAL: length zero or above 16 TiB, bad options; -ENOMEM; -EEXIST: address is taken;
 * -EOPNOTSUPP: the trap is not to be had here; -EMFILE, -ENFILE: a region with a userfaultfd trap
 * has two to four descriptors. */
COW_API int cow_region_new(size_t length, const struct cow_region_options *options,
			   struct cow_region **ret_region);

/* Takes over an existing mapping of private anonymous memory with what it holds; address and length
 * in whole pages. The memory stays mapped after cow_region_free(), which must come before the
 * caller unmaps it; the last snapshot must be gone by then too. options->address is not looked at;
 * branches of it are ordinary regions. A child of fork() may adopt what it inherited. -EINVAL:
 * unaligned, flags that are about how memory is mapped, or memory that the trap cannot work on (a
 * mapped file under the signal and the thread trap); -EBUSY: some of it is a region already, or was
 * one whose snapshots are held, or is registered with another userfaultfd; -ENOMEM: not mapped. */
COW_API int cow_region_adopt(void *address, size_t length, const struct cow_region_options *options,
			     struct cow_region **ret_region);

/* NULL-safe. Snapshots that are still held stay readable; no other call may be running on the
 * region. In a fork()ed child it does nothing. */
COW_API void cow_region_free(struct cow_region *region);

COW_API void *cow_region_get_base(const struct cow_region *region);
COW_API size_t cow_region_get_length(const struct cow_region *region);

/* Opens the pages of a range for writing and keeps every cut away until the matching _end, which is
 * called by the same thread with the same range. Brackets nest, also over several regions. A cut by
 * another thread is waited for, unless the calling thread has a bracket open already. Taking a cut,
 * or rolling back, with a bracket open on another region is possible, but while somebody cuts both
 * regions at once the two wait for each other until one gets -ETIMEDOUT. -EAGAIN: at the limit (see
 * enum cow_limit_policy), nothing is held then, and no content changed; -ENOMEM; -EMFILE: this
 * thread has brackets open on 32 other regions; -ESTALE: the page's old content was in a snapshot
 * that was given up (a branch of a dropped one); -EIO: spilled content could not be read back. */
COW_API int cow_region_write_begin(struct cow_region *region, const void *address, size_t length);
COW_API void cow_region_write_end(struct cow_region *region, const void *address, size_t length);

/* write_begin and write_end at once: the pages stay open until the next cut, so it is enough where
 * no other thread cuts. */
COW_API int cow_region_touch(struct cow_region *region, const void *address, size_t length);

/* Copies buffer into the region inside a bracket. */
COW_API int cow_region_write(struct cow_region *region, size_t offset, const void *buffer,
			     size_t length);

/* Copies out the live state; under the explicit trap an untouched page of a branch is read through
 * to the snapshot it came from. Not ordered against other threads' writes to the same bytes. */
COW_API int cow_region_read(struct cow_region *region, size_t offset, void *buffer, size_t length);

/* The range reads as zero afterwards; counts as a write; whole pages give their memory back. */
COW_API int cow_region_discard(struct cow_region *region, size_t offset, size_t length);

/* Protects ahead, beside running writers, so that the next cut is short. Nothing to do under the
 * explicit trap: a cut protects nothing there. */
COW_API int cow_region_arm(struct cow_region *region);

/* Takes a snapshot: what the region holds when no bracket is open. O(1) under the explicit trap.
 * The caller owns one reference. -EDEADLK: this thread has a bracket open on the region;
 * -ETIMEDOUT: a bracket of another thread stayed open for cut_timeout_ns; -ENOMEM.
 * Two cuts of one region follow each other. */
COW_API int cow_region_snapshot(struct cow_region *region, struct cow_snapshot **ret_snapshot);

/* One cut over several regions: no bracket on any of them is open while it is taken, so what is
 * written to one region after another is not torn. count is 1 to COW_SNAPSHOT_MANY_MAX; a region
 * named twice gives -EINVAL. All or none. */
COW_API int cow_region_snapshot_many(struct cow_region *const regions[], size_t count,
				     struct cow_snapshot *ret_snapshots[]);
#define COW_SNAPSHOT_MANY_MAX 1024

/* Puts the region back to a snapshot of it. The caller has no writer running. Counts as a write of
 * the pages that were written since, so all other snapshots, newer ones too, stay valid. All or
 * nothing: -EAGAIN (limit), -EIO and -ENOMEM leave the contents as they were. -EINVAL: a snapshot
 * of another region; -EDEADLK: this thread has a bracket open; -ESTALE: the snapshot was
 * dropped. */
COW_API int cow_region_rollback(struct cow_region *region, struct cow_snapshot *snapshot);

/* Makes equal kept pages share one frame, as KSM does; writers and readers go on meanwhile. Costs a
 * pass over all kept pages. ret_bytes (may be NULL) gets the bytes that became free. */
COW_API int cow_region_merge(struct cow_region *region, uint64_t *ret_bytes);

/* Under COW_REGION_CHECK: looks whether a page was written unnoticed since the last cut or look,
 * beside running writers, reads all that was written. What is found is told to the log, and counted
 * in the statistics; ret_pages (may be NULL) gets the pages found by this call. Cuts look by
 * themselves. -EOPNOTSUPP: the region was made without the flag; errors of
 * cow_region_write_begin(). */
COW_API int cow_region_check(struct cow_region *region, uint64_t *ret_pages);

struct cow_region_stats {
	size_t size;
	enum cow_trap trap;     /* the one in use */
	uint32_t page_size;     /* bytes */
	uint64_t pages;         /* the region's length in pages */
	uint64_t present_pages; /* have content of their own in the region's memory */
	uint64_t open_pages;    /* writable since the last cut */
	uint64_t faults;        /* first writes to a page after a cut: the sum of the next three */
	uint64_t copied_pages;  /* a pre-image was kept */
	uint64_t reused_pages;  /* opened without a copy: no snapshot read the old content */
	uint64_t
		filled_pages; /* had no content of their own: zero-filled, or filled from a branch's
			         source */
	uint64_t spilled_pages;  /* pre-images written to the spill file so far */
	uint64_t preimage_bytes; /* kept pre-images in memory */
	uint64_t spilled_bytes;  /* kept pre-images in the spill file */
	uint64_t pool_bytes;     /* idle frames, ready for reuse */
	uint64_t view_bytes; /* address space of mapped views; memory follows the pages looked at */
	uint64_t metadata_bytes;    /* page table, versions, snapshots */
	uint64_t snapshots;         /* alive, dropped ones not counted */
	uint64_t dropped_snapshots; /* given up at the limit so far */
	uint64_t cut_ns_last;       /* duration of the last cut: closing the gate to opening it */
	uint64_t cut_ns_max;
	uint64_t fault_ns_p50; /* of first writes; sampled one in 64, from a log-linear histogram
	                             (within 1/16); 0 when nothing was sampled yet */
	uint64_t fault_ns_p99;
	uint64_t fault_ns_max;
	uint64_t bypassed_pages; /* COW_REGION_CHECK: found to have been written unnoticed */
};
#define COW_REGION_STATS_INIT COW_INIT_(cow_region_stats)

/* ret_stats->size is set by the caller. Counters are exact when no other thread is inside a
 * call. */
COW_API int cow_region_get_stats(struct cow_region *region, struct cow_region_stats *ret_stats);

/* Returns snapshot with one reference more. */
COW_API struct cow_snapshot *cow_snapshot_ref(struct cow_snapshot *snapshot);

/* Drops one reference, the last one frees what only this snapshot needed; the cost grows with what
 * it frees, not with the number of snapshots alive. NULL-safe; returns NULL. In a fork()ed child it
 * does nothing. */
COW_API struct cow_snapshot *cow_snapshot_unref(struct cow_snapshot *snapshot);

COW_API size_t cow_snapshot_get_length(const struct cow_snapshot *snapshot);

/* Copies out a range of the snapshot, beside running writers; never waits for one.
 * -ESTALE: given up at the limit; -EIO: spilled content could not be read back. */
COW_API int cow_snapshot_read(struct cow_snapshot *snapshot, size_t offset, void *buffer,
			      size_t length);

/* Flags of cow_snapshot_map(). */
#define COW_MAP_POPULATE \
	0x1u /* fill the whole view now: for a view that is handed to system calls,
                                 which may not be able to fill it on demand */

/* A contiguous read-only view of the whole snapshot, the same at every call, valid while a
 * reference is held. Filled on demand through userfaultfd by a service thread of the library, at
 * once where there is no userfaultfd. Reading a view of a snapshot that was given up, or whose
 * spilled content cannot be read back, raises SIGBUS. A view is absent in a fork()ed child. */
COW_API int cow_snapshot_map(struct cow_snapshot *snapshot, uint32_t flags, const void **ret_base);

/* A writable duplicate: a region of its own with the snapshot's content, as long as the snapshot.
 * It costs nothing until written, and pins the snapshot. options as for cow_region_new(). */
COW_API int cow_snapshot_branch(struct cow_snapshot *snapshot,
				const struct cow_region_options *options,
				struct cow_region **ret_region);

/* Called with each range that differs, in ascending order, whole pages; non-zero stops. */
typedef int (*cow_range_fn)(size_t offset, size_t length, void *context);

/* Compares two snapshots of one region, or (newer NULL) a snapshot with the live region: reports
 * the whole pages whose bytes differ, neighbours joined. Returns 0, what range returned when it
 * stopped, or a negative errno. Pages never written in between are not looked at. Not ordered
 * against running writers when newer is NULL. -EINVAL: snapshots of two regions. */
COW_API int cow_snapshot_diff(struct cow_snapshot *older, struct cow_snapshot *newer,
			      cow_range_fn range, void *context);

struct cow_snapshot_stats {
	size_t size;
	uint64_t time_ns;       /* when it was taken, CLOCK_REALTIME */
	uint64_t length;        /* bytes */
	uint64_t shared_bytes;  /* read from the live region, or shared with another snapshot */
	uint64_t private_bytes; /* held for this snapshot alone: what its last unref would free */
	uint64_t view_bytes;    /* address space of its view, 0 when not mapped */
	uint32_t dropped;       /* 1: given up at the limit, reads return -ESTALE */
	uint32_t branches;      /* regions branched from it and not freed */
};
#define COW_SNAPSHOT_STATS_INIT COW_INIT_(cow_snapshot_stats)

COW_API int cow_snapshot_get_stats(struct cow_snapshot *snapshot,
				   struct cow_snapshot_stats *ret_stats);

/*
 * The store: a directory of durable layers.
 *
 * A layer is what one save wrote: the pages that changed since its parent, as an immutable qcow2
 * image that qemu-img and every other reader opens, with checksums of its own. It is named by its
 * identity, "ID.qcow2", and names its parent. The file HEAD names the newest layer, and the tags.
 * A crash at any moment leaves the directory as it was before the save, or after it.
 *
 * One process writes a store at a time, any number read it, also while layers are merged and
 * removed; threads may share one cow_store, whose calls then follow each other. Where a layer is
 * named by text, that is an identity, a tag, or NULL for HEAD; -ENOENT where there is no such
 * layer, for HEAD: where nothing was saved yet. Whatever is wrong with a file is said to the log
 * with the file's name; then the calls return -EUCLEAN: damaged, modified, not what its name says,
 * or missing though HEAD, a tag or a child names it; -ELOOP: a chain that runs in a circle; -E2BIG:
 * one of more than COW_STORE_DEPTH_MAX layers; -EOPNOTSUPP: a feature that this library does not
 * read; -EBUSY: the writer was stopped while it removed the layer. After fork() a child has to open
 * the store anew: -ECHILD. A function of the caller's that is called back by a call on a store must
 * not call that store: -EDEADLK.
 */
struct cow_store;

/* With their NUL: a layer's identity as text; a tag at the most, which is made of letters, digits,
 * and -_.+@, the first neither - nor . */
#define COW_ID_LENGTH       37
#define COW_TAG_LENGTH      64
#define COW_STORE_DEPTH_MAX 4096 /* layers on top of each other */

/* Called now and then with how much is done, in bytes; non-zero ends the call, which then leaves
 * everything as it was and returns -ECANCELED. */
typedef int (*cow_progress_fn)(uint64_t done, uint64_t total, void *context);

/* Flags of cow_store_open(). */
#define COW_STORE_CREATE    0x1u /* make the directory where there is none; not with READ_ONLY */
#define COW_STORE_READ_ONLY 0x2u /* beside whoever writes it; calls that write give -EROFS */

/* -ENOENT: no such directory; -EBUSY: another process, or another cow_store, has it open for
 * writing; -EINVAL: an unknown flag; -EUCLEAN: HEAD is damaged. What an interrupted save left
 * behind is removed, a whole layer by the first save. Where a process dies that has a store open,
 * children that it fork()ed and that are still there keep it locked until they end or exec(). */
COW_API int cow_store_open(const char *directory, uint32_t flags, struct cow_store **ret_store);

/* NULL-safe. Regions restored from it, and snapshots that read their layers, stay good. */
COW_API void cow_store_close(struct cow_store *store);

/* Flags of struct cow_save_options.
 *
 * CONSUME: the snapshot is given up while it is saved: what is on its way to disk needs no
 * pre-image. Who reads it meanwhile gets -ESTALE. If the save fails it is gone; else as OFFLOAD.
 * OFFLOAD: afterwards the snapshot is read from its layer, and its memory is freed; while it is
 * held, the layer is not removed. */
#define COW_SAVE_FULL      0x1u /* everything, on no parent */
#define COW_SAVE_CONSUME   0x2u
#define COW_SAVE_OFFLOAD   0x4u
#define COW_SAVE_KEEP_HEAD 0x8u /* HEAD stays where it is */

struct cow_save_options {
	size_t size;
	uint32_t flags;  /* COW_SAVE_...; unknown bits give -EINVAL */
	const char *tag; /* set to the new layer with the save, at once; NULL: none */
	cow_progress_fn progress;
	void *context;
	const void *state;   /* the caller's own, kept with the layer: registers, a root pointer */
	size_t state_length; /* bytes, at most COW_STATE_MAX */
};
#define COW_SAVE_OPTIONS_INIT COW_INIT_(cow_save_options)
#define COW_STATE_MAX         ((size_t)1 << 20)

/* Writes a snapshot as a layer, beside running writers, and waits until it is on disk. Only what
 * changed since an earlier save of the region into this store, or since the layer that the region
 * was restored from, is written: that layer becomes the parent. The first save of an explicit
 * branch goes on from what its source was saved as; under the traps it is full. A snapshot that was
 * saved here already is not written again; its identity is returned, and tag and HEAD are set. The
 * save on top of COW_STORE_DEPTH_MAX layers is a full one: a program that saves for ever deletes
 * what it no longer needs and compacts, as examples/c/kv.c does. options may be NULL; ret_id too.
 * -EINVAL: a bad tag; -EFBIG: a region above 8 TiB; -ESTALE: the snapshot was given up; -ENOSPC,
 * -EIO and others: the store is as it was. */
COW_API int cow_store_save(struct cow_store *store, struct cow_snapshot *snapshot,
			   const struct cow_save_options *options, char ret_id[COW_ID_LENGTH]);

/* When the checksums of restored pages are looked at. Those of what describes the layers always
 * are. */
enum cow_verify {
	COW_VERIFY_FAULT, /* when a page is brought in, where the trap sees that (signal, thread);
	                     else as NONE, since the kernel brings pages in from the file */
	COW_VERIFY_EAGER, /* of all pages, before the call returns */
	COW_VERIFY_NONE,
};

/* Flags of struct cow_restore_options.
 *
 * SAME_ADDRESS: at the address that it was saved from, so that pointers inside stay valid; -EEXIST
 * where that is taken, as an address that the kernel chose may be in the next process: choose one
 * when the region is made (examples/c/heap.c). The member address is not looked at. */
#define COW_RESTORE_SAME_ADDRESS 0x1u
#define COW_RESTORE_POPULATE     0x2u /* bring everything in before the call returns */

struct cow_restore_options {
	size_t size;
	uint32_t flags;     /* COW_RESTORE_...; unknown bits give -EINVAL */
	void *address;      /* wanted base address, NULL for any; -EEXIST where it is taken */
	enum cow_trap trap; /* of the region */
	enum cow_verify verify;
	cow_progress_fn progress; /* of EAGER and POPULATE */
	void *context;
	const struct cow_region_options *region; /* limits and the like; its trap, address and flags
						    are not looked at. NULL: defaults */
};
#define COW_RESTORE_OPTIONS_INIT COW_INIT_(cow_restore_options)

/* Makes a region with a layer's content, which is brought in as it is touched: usable at once,
 * whatever its size. The next save of it into the same store is incremental on the layer. Regions
 * restored from one layer share the pages that neither of them wrote. The layer's files may not
 * be changed by others; they are not removed while the region lives. A page that cannot be read
 * raises SIGBUS. A fork()ed child has the region only where everything was brought in (POPULATE,
 * EAGER), else it may be absent there. options may be NULL. -EEXIST, -ENOMEM, -EOPNOTSUPP as
 * cow_region_new(). */
COW_API int cow_store_restore(struct cow_store *store, const char *id,
			      const struct cow_restore_options *options,
			      struct cow_region **ret_region);

/* Flags of struct cow_layer_info. */
#define COW_LAYER_HEAD       0x01u
#define COW_LAYER_DELETED    0x02u /* there only for its children, until the next compaction */
#define COW_LAYER_COMPRESSED 0x04u
#define COW_LAYER_IN_USE     0x08u /* by a region or snapshot of this cow_store */
#define COW_LAYER_DAMAGED    0x10u /* only its identity is known */

struct cow_layer_info {
	size_t size;
	uint32_t flags; /* COW_LAYER_... */
	uint32_t depth; /* layers below it */
	char id[COW_ID_LENGTH];
	char parent[COW_ID_LENGTH]; /* empty: none */
	uint64_t sequence;          /* later saves have higher ones */
	uint64_t time_ns;           /* when the snapshot was taken, CLOCK_REALTIME */
	uint64_t length;            /* of the region, bytes */
	uint64_t address;           /* where the region was */
	uint64_t page_size;         /* of the machine that saved it, bytes */
	uint64_t data_bytes;        /* content that this layer holds itself */
	uint64_t zero_bytes;        /* recorded as zero by this layer itself */
	uint64_t file_bytes;        /* size of its file */
	uint64_t state_length;      /* bytes of the caller's own state */
};
#define COW_LAYER_INFO_INIT COW_INIT_(cow_layer_info)

/* ret_info->size is set by the caller. */
COW_API int cow_store_get_info(struct cow_store *store, const char *id,
			       struct cow_layer_info *ret_info);

/* Copies the state out that was given with the save: at most length bytes. Returns how many there
 * are, or a negative errno. */
COW_API ssize_t cow_store_get_state(struct cow_store *store, const char *id, void *buffer,
				    size_t length);

/* Calls layer for every layer, newest first; info is valid during the call. Non-zero stops and is
 * returned. */
typedef int (*cow_layer_fn)(const struct cow_layer_info *info, void *context);
COW_API int cow_store_list(struct cow_store *store, cow_layer_fn layer, void *context);

/* Likewise for every tag, in order of their names. */
typedef int (*cow_tag_fn)(const char *tag, const char *id, void *context);
COW_API int cow_store_list_tags(struct cow_store *store, cow_tag_fn tag, void *context);

/* Makes tag name a layer, also if it named another one before. */
COW_API int cow_store_tag(struct cow_store *store, const char *id, const char *tag);
COW_API int cow_store_untag(struct cow_store *store, const char *tag); /* -ENOENT */

/* Gives a layer up: it can no longer be named. Its file goes at once where no child needs it and
 * nobody uses it, else with the next compaction. -EBUSY: it is HEAD and has no parent to take its
 * place, or a tag names it. HEAD moves to the parent. */
COW_API int cow_store_delete(struct cow_store *store, const char *id);

/* Flags of struct cow_compact_options.
 *
 * COMPRESS: zstd, in clusters of 64 KiB, for layers of 1 MiB and more that are neither HEAD nor
 * tagged, except those that hold little in many places. They read as before, but cannot be mapped:
 * what is restored from them is unpacked as it is touched. Later compactions keep them compressed.
 * -EOPNOTSUPP where it was not built in. */
#define COW_COMPACT_COMPRESS 0x1u

struct cow_compact_options {
	size_t size;
	uint32_t flags;
	uint32_t depth_max; /* a kept layer deeper than this is put on a base of its own; 0: 32 */
	cow_progress_fn progress;
	void *context;
};
#define COW_COMPACT_OPTIONS_INIT COW_INIT_(cow_compact_options)

struct cow_compact_stats {
	size_t size;
	uint32_t removed;                   /* layers */
	uint32_t rewritten;                 /* layers */
	uint32_t busy;                      /* deleted layers that somebody still uses */
	uint32_t depth;                     /* of the deepest chain afterwards */
	uint64_t bytes_before, bytes_after; /* of all files */
	uint64_t cloned_bytes; /* shared with the old file (FICLONERANGE), not copied */
	uint64_t compressed;   /* layers that were written compressed */
	uint64_t compressed_before, compressed_after; /* bytes of their content, of their files */
};
#define COW_COMPACT_STATS_INIT COW_INIT_(cow_compact_stats)

/* Merges deleted layers into their children and shortens chains that are too deep. What a layer
 * reads as, and its identity, never change; each step is one rename, so a crash loses nothing.
 * options and ret_stats may be NULL. */
COW_API int cow_store_compact(struct cow_store *store, const struct cow_compact_options *options,
			      struct cow_compact_stats *ret_stats);

/* Called for each piece of damage: of a layer's file (offset and length in the file), or of the
 * store itself (id empty). Non-zero stops. */
typedef int (*cow_damage_fn)(const char *id, uint64_t offset, uint64_t length, const char *what,
			     void *context);

/* Reads a layer and all below it, or everything (id NULL), and checks each byte against its
 * checksum, each chain against its identities. 0: all is well; -EUCLEAN: damage was reported.
 * damage and progress may be NULL. */
COW_API int cow_store_verify(struct cow_store *store, const char *id, cow_damage_fn damage,
			     cow_progress_fn progress, void *context);

/* Reports the ranges in which the contents of two layers differ, in ascending order, in whole
 * clusters of 4 KiB; lengths may differ: what one does not have is compared as zero. */
COW_API int cow_store_diff(struct cow_store *store, const char *older, const char *newer,
			   cow_range_fn range, void *context);

/* Writes a layer's content to a new file, as a raw image with holes where it is zero; -EEXIST: the
 * file is there already. On failure the file is gone. */
COW_API int cow_store_export(struct cow_store *store, const char *id, const char *path,
			     cow_progress_fn progress, void *context);

struct cow_import_options {
	size_t size;
	uint32_t flags; /* 0 */
	const char *tag;
	cow_progress_fn progress;
	void *context;
	const char *format; /* "qcow2", "raw"; NULL: found out, by qcow2's magic */
};
#define COW_IMPORT_OPTIONS_INIT COW_INIT_(cow_import_options)

/* Makes an image a layer without a parent, and HEAD: a raw one, or a qcow2 one (versions 2 and 3,
 * clusters of 512 bytes to 2 MiB, compressed ones too) with all that lies below it. The image is
 * only read. -EOPNOTSUPP: it uses a feature that is not read (encryption, an external data file,
 * ...), which the log names; -EUCLEAN: it is damaged; -EINVAL: neither format, or no regular file;
 * -EBUSY: somebody wrote it meanwhile. */
COW_API int cow_store_import(struct cow_store *store, const char *path,
			     const struct cow_import_options *options, char ret_id[COW_ID_LENGTH]);

/* Receives the library's messages: why something was refused and what to do about it, limits
 * reached, fallbacks taken. priority is one of syslog's; message is one line without a newline,
 * valid during the call. Silent by default; NULL silences again. Called from the thread that caused
 * the message, never from a trap: what happens in one is told by the next call that may. No lock of
 * the library is held but, where it is about a store, that store's: do not call the store from
 * there. */
typedef void (*cow_log_fn)(int priority, const char *message, void *context);
COW_API void cow_log_set(cow_log_fn log, void *context);

/* What the kernel can do that libcow uses, or that tells kernels apart. In brackets: since when. */
#define COW_FEATURE_WRITE_PROTECT        0x01u /* of anonymous memory [5.7; arm64 6.10] */
#define COW_FEATURE_WRITE_PROTECT_SHARED 0x02u /* of memfds: COW_REGION_SHARED [5.19] */
#define COW_FEATURE_WRITE_PROTECT_EMPTY \
	0x04u /* of pages without content [6.4]; else they get the zero page first */
#define COW_FEATURE_WRITE_PROTECT_ASYNC 0x08u /* not used: keeps no old contents [6.7] */
#define COW_FEATURE_SIGBUS              0x10u /* a signal instead of a message [4.14] */
#define COW_FEATURE_MINOR               0x20u /* not used: minor faults of memfds [5.14] */
#define COW_FEATURE_MOVE                0x40u /* not used: moves pages [6.8] */
#define COW_FEATURE_PAGEMAP_SCAN \
	0x80u /* finds content in long reserved ranges [6.7]; else page by page */

struct cow_system {
	size_t size;
	enum cow_trap auto_trap; /* what COW_TRAP_AUTO takes */
	int trap_error[5]; /* by enum cow_trap: 0, or why it is not to be had, a negative errno */
	uint32_t kernel_faults; /* 1: the thread trap serves the kernel's own writes, too */
	uint32_t page_size;     /* bytes */
	uint32_t features;      /* COW_FEATURE_... */
	int call_error;      /* userfaultfd(2) that serves the kernel's own accesses: 0 or -errno */
	int user_call_error; /* the same of user mode only */
	int device_error;    /* the same through /dev/userfaultfd */
	int pagemap_error;   /* opening /proc/self/pagemap, which all but two traps need */
};
#define COW_SYSTEM_INIT COW_INIT_(cow_system)

/* Finds out what the kernel, the container and the user allow, by trying it on a page of its own;
 * nothing of it stays, no signal handler is installed. ret_system->size is set by the caller. Also
 * for a child of fork(). -EMFILE, -ENFILE, -ENOMEM: no room to find out. */
COW_API int cow_system_probe(struct cow_system *ret_system);

/* The library's version as text, "0.1.0". */
COW_API const char *cow_version(void);

#ifdef __cplusplus
}
#endif
#endif
