/* SPDX-License-Identifier: MIT */
/*
 * A key-value server in memory, saved in the background every second while its clients go on
 * writing, and there again after a crash: what Redis does with fork(), without its stall, and
 * without needing the memory twice.
 *
 *   kv DIRECTORY PORT      then: nc localhost PORT, and: set KEY VALUE, set KEY, get KEY
 *
 * The table is an array at the region's start, so no pointer has to survive. Each write of a slot
 * stands in a bracket: a snapshot falls between two brackets, never into one.
 */
#include <arpa/inet.h>
#include <cow.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS   (1u << 20) /* 256 MiB of addresses; memory follows what is written */
#define PROBES  64u
#define COMPACT 30u /* saves from one compaction to the next */

struct slot {
	char key[64], value[192]; /* no key: free; no value: deleted */
};

static struct cow_region *region;
static struct slot *table;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of clients; a save takes none */
static atomic_ulong changes;

static void must(int result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "kv: %s: %s\n", what, strerror(-result));
	exit(1);
}

static struct slot *find(const char *key)
{
	uint32_t hash = 2166136261u;

	for (const char *at = key; *at; at++)
		hash = (hash ^ (unsigned char)*at) * 16777619u;
	for (uint32_t i = 0; i < PROBES; i++) {
		struct slot *slot = &table[(hash + i) % SLOTS];

		if (slot->key[0] == '\0' || strcmp(slot->key, key) == 0)
			return slot;
	}
	return NULL;
}

static int set(struct slot *slot, const char *key, const char *value)
{
	int r = cow_region_write_begin(region, slot, sizeof(*slot));

	if (r < 0)
		return r; /* -EAGAIN: the disk is too slow for the limit below */
	strcpy(slot->key, key);
	strcpy(slot->value, value);
	cow_region_write_end(region, slot, sizeof(*slot));
	atomic_fetch_add(&changes, 1);
	return 0;
}

static void answer(const char *line, FILE *client)
{
	char verb[8] = "", key[64] = "", value[192] = "";
	int r = sscanf(line, "%7s %63s %191[^\r\n]", verb, key, value) < 2 ? -EINVAL : 0;
	struct slot *slot;

	pthread_mutex_lock(&mutex);
	slot = find(key);
	if (r == 0 && !slot)
		r = -ENOSPC;
	else if (r == 0 && strcmp(verb, "set") == 0)
		r = set(slot, key, value);
	else if (r == 0 && strcmp(verb, "get") == 0)
		strcpy(value, slot->value);
	else
		r = -EINVAL;
	pthread_mutex_unlock(&mutex);
	fprintf(client, "%s\n", r < 0 ? strerror(-r) : verb[0] == 'g' ? value : "ok");
	fflush(client);
}

static void *serve(void *connection)
{
	FILE *in = fdopen((int)(intptr_t)connection, "r"), *out = fdopen(dup(fileno(in)), "w");
	char line[300];

	while (fgets(line, sizeof(line), in))
		answer(line, out);
	fclose(in);
	fclose(out);
	return NULL;
}

static void *listen_on(void *port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_port = htons((uint16_t)atoi(port)),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int connection, server = socket(AF_INET, SOCK_STREAM, 0);
	pthread_t thread;

	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(server, (void *)&address, sizeof(address)) < 0 || listen(server, 64) < 0)
		must(-errno, port);
	while ((connection = accept(server, NULL, NULL)) >= 0) {
		must(-pthread_create(&thread, NULL, serve, (void *)(intptr_t)connection), "thread");
		pthread_detach(thread);
	}
	must(-errno, "accept");
	return NULL;
}

/* The newest layer replaces the one before; compacting makes one of both. */
static int save(struct cow_store *store, char newest[COW_ID_LENGTH])
{
	struct cow_save_options options = COW_SAVE_OPTIONS_INIT;
	struct cow_snapshot *snapshot;
	char id[COW_ID_LENGTH];
	int r = cow_region_snapshot(region, &snapshot);

	if (r < 0)
		return r;
	options.flags = COW_SAVE_CONSUME; /* nobody else reads it: keep only what waits for disk */
	r = cow_store_save(store, snapshot, &options, id);
	cow_snapshot_unref(snapshot);
	if (r == 0 && newest[0])
		must(cow_store_delete(store, newest), "delete");
	if (r == 0)
		memcpy(newest, id, sizeof(id));
	return r;
}

static void load(struct cow_store *store, char newest[COW_ID_LENGTH])
{
	struct cow_region_options limits = COW_REGION_OPTIONS_INIT;
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_layer_info info = COW_LAYER_INFO_INIT;
	int r = cow_store_get_info(store, NULL, &info);

	limits.trap = options.trap = COW_TRAP_EXPLICIT;
	limits.preimage_limit = (size_t)16 << 20;
	limits.limit_policy = COW_LIMIT_BLOCK; /* rather a client waits than the save is lost */
	options.region = &limits;
	if (r == -ENOENT) /* nothing was saved yet */
		r = cow_region_new(SLOTS * sizeof(struct slot), &limits, &region);
	else if (r == 0)
		r = cow_store_restore(store, NULL, &options, &region);
	must(r, "restore");
	table = cow_region_get_base(region);
	memcpy(newest, info.id, sizeof(info.id));
}

int main(int argc, char **argv)
{
	unsigned long saved = 0, saves = 0, now;
	char newest[COW_ID_LENGTH];
	struct cow_store *store;
	pthread_t thread;
	int r;

	if (argc != 3) {
		fprintf(stderr, "usage: kv DIRECTORY PORT\n");
		return 2;
	}
	must(cow_store_open(argv[1], COW_STORE_CREATE, &store), argv[1]);
	load(store, newest);
	must(-pthread_create(&thread, NULL, listen_on, argv[2]), "thread");
	for (;; sleep(1)) {
		now = atomic_load(&changes);
		if (now == saved)
			continue;
		r = save(store, newest);
		if (r == 0)
			saved = now;
		else /* a full disk, say: the next one may do */
			fprintf(stderr, "kv: not saved: %s\n", strerror(-r));
		if (r == 0 && ++saves % COMPACT == 0)
			must(cow_store_compact(store, NULL, NULL), "compact");
	}
}
