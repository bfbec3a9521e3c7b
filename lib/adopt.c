/* SPDX-License-Identifier: MIT */
/*
 * Memory that the caller mapped, taken over as a region.
 *
 * Two regions over the same page would each undo the other's protection, and a writer would trap
 * for ever. So those that were adopted are in a list, from the call until the last snapshot is
 * gone; in a child of fork() the parent's are nobody's, and the child may adopt what it inherited.
 * What the kernel cannot trap is refused at once, and not by the first snapshot.
 */
#include "lib/adopt.h"
#include "lib/process.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the list */
static struct cow_region *regions;                        /* linked by adopted_next */

static bool overlaps(const struct cow_region *region, const unsigned char *address, size_t length)
{
	uintptr_t start = (uintptr_t)region->base, other = (uintptr_t)address;

	return start < other + length && other < start + region->length;
}

static bool is_taken(const unsigned char *address, size_t length)
{
	const struct cow_region *region = regions;

	while (region && !(process_is(region->process) && overlaps(region, address, length)))
		region = region->adopted_next;
	return region != NULL;
}

int adopted_add(struct cow_region *region, void *address)
{
	bool taken;

	pthread_mutex_lock(&mutex);
	taken = is_taken(address, region->length);
	if (!taken) {
		region->adopted = true;
		region->base = address;
		region->adopted_next = regions;
		regions = region;
	}
	pthread_mutex_unlock(&mutex);
	if (!taken)
		return 0;
	log_message(LOG_ERR,
		    "libcow: memory at %p is a region already: free that one, and its last "
		    "snapshot, first",
		    address);
	return -EBUSY;
}

/* Closing the trap's descriptor is not enough: a child of fork() has one too, and the kernel would
 * keep sending it the faults for as long as the child lives. */
void adopted_release(struct cow_region *region)
{
	if (region->adopted && region->trap && region->trap->uffd >= 0)
		(void)sys_uffd_unregister(region->trap->uffd, region->base, region->length);
}

void adopted_remove(struct cow_region *region)
{
	struct cow_region **link = &regions;

	if (!region->adopted)
		return;
	pthread_mutex_lock(&mutex);
	while (*link != region)
		link = &(*link)->adopted_next;
	*link = region->adopted_next;
	pthread_mutex_unlock(&mutex);
}

/* Registered for a moment, and without anything protected: no writer notices. */
int adopted_try(const struct cow_region *region)
{
	int r;

	if (!region->trap || region->trap->uffd < 0)
		return 0;
	r = sys_uffd_register(region->trap->uffd, region->base, region->length, false);
	if (r == 0)
		r = sys_uffd_unregister(region->trap->uffd, region->base, region->length);
	if (r == -EINVAL)
		log_message(LOG_ERR,
			    "libcow: userfaultfd cannot trap what is mapped at %p, since it is not "
			    "anonymous memory: use COW_TRAP_MPROTECT or COW_TRAP_EXPLICIT",
			    (void *)region->base);
	else if (r == -EBUSY)
		log_message(LOG_ERR, "libcow: memory at %p is registered with another userfaultfd",
			    (void *)region->base);
	return r;
}

/* The parent's are nobody's here. */
void adopted_after_fork(void)
{
	pthread_mutex_init(&mutex, NULL);
	regions = NULL;
}

int cow_region_adopt(void *address, size_t length, const struct cow_region_options *options,
		     struct cow_region **ret_region)
{
	size_t page = sys_page_size();

	if (!address || (uintptr_t)address % page != 0 || length % page != 0)
		return log_refusal("memory to adopt begins and ends with a page of %zu bytes",
				   page);
	if (length == 0 || length > REGION_LENGTH_MAX)
		return log_refusal("a region has 1 byte to 16 TiB, not %zu bytes", length);
	if (!sys_is_mapped(address, length))
		return -ENOMEM;
	return region_make(length, options, (struct region_base){ .adopt = address }, ret_region);
}
