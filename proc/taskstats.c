/* SPDX-License-Identifier: MIT */
#include "proc/taskstats.h"

#include <errno.h>
#include <string.h>

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/taskstats.h>

#define VERSION_WITH_COPIES 13
#define VERSION_WITH_TGID   12
#define VERSION_SHIFTED     15

/* Bytes that have not been read yet. */
struct cursor {
	const unsigned char *at;
	size_t left;
};

/*
 * Takes a header of `size` bytes whose first member is a length (of 16 or 32 bits) that covers it,
 * and what follows it. The copies are there because nothing of a datagram need be aligned.
 */
static int take(struct cursor *cursor, void *header, size_t size, size_t length,
		struct cursor *ret_body)
{
	size_t padded = (length + 3) & ~(size_t)3;

	if (length < size || length > cursor->left)
		return -EPROTO;
	memcpy(header, cursor->at, size);
	*ret_body = (struct cursor){ cursor->at + size, length - size };
	if (padded > cursor->left)
		padded = cursor->left;
	cursor->at += padded;
	cursor->left -= padded;
	return 0;
}

static int take_message(struct cursor *cursor, struct nlmsghdr *ret_header, struct cursor *ret_body)
{
	uint32_t length;

	if (cursor->left < sizeof(*ret_header))
		return -EPROTO;
	memcpy(&length, cursor->at, sizeof(length));
	return take(cursor, ret_header, sizeof(*ret_header), length, ret_body);
}

static int take_attribute(struct cursor *cursor, uint16_t *ret_type, struct cursor *ret_body)
{
	struct nlattr header;
	uint16_t length;
	int error;

	if (cursor->left < sizeof(header))
		return -EPROTO;
	memcpy(&length, cursor->at, sizeof(length));
	error = take(cursor, &header, sizeof(header), length, ret_body);
	if (!error)
		*ret_type = header.nla_type & NLA_TYPE_MASK;
	return error;
}

/* The error that a message carries; 0 is an acknowledgement. */
static int message_error(const struct nlmsghdr *header, struct cursor body)
{
	int32_t error;

	if (header->nlmsg_type != NLMSG_ERROR)
		return 0;
	if (body.left < sizeof(error))
		return -EPROTO;
	memcpy(&error, body.at, sizeof(error));
	return error < 0 ? error : 0;
}

static int read_record(struct cursor body, struct proc_taskstats *record)
{
	struct taskstats raw = { 0 };

	/* The shortest record that has what every kernel reports. */
	if (body.left < offsetof(struct taskstats, ac_majflt) + sizeof(raw.ac_majflt))
		return -EPROTO;
	memcpy(&raw, body.at, body.left < sizeof(raw) ? body.left : sizeof(raw));
	if (raw.version == VERSION_SHIFTED)
		return -EPROTONOSUPPORT;
	record->version = raw.version;
	record->parent = raw.ac_ppid;
	memcpy(record->command, raw.ac_comm, sizeof(record->command) - 1);
	record->minor_faults = raw.ac_minflt;
	record->major_faults = raw.ac_majflt;
	if (raw.version >= VERSION_WITH_TGID && !record->process)
		record->tgid = raw.ac_tgid;
	if (raw.version >= VERSION_WITH_COPIES &&
	    body.left >= offsetof(struct taskstats, wpcopy_delay_total) + sizeof(uint64_t)) {
		record->has_copies = true;
		record->copies = raw.wpcopy_count;
		record->copy_ns = raw.wpcopy_delay_total;
	}
	return 0;
}

/* An aggregate: the identity, then the record. */
static int parse_aggregate(struct cursor body, bool process, struct proc_taskstats *record)
{
	bool identified = false, found = false;
	struct cursor value;
	uint16_t type;
	int error;

	*record = (struct proc_taskstats){ .process = process };
	while (body.left) {
		error = take_attribute(&body, &type, &value);
		if (error)
			return error;
		if ((type == TASKSTATS_TYPE_PID || type == TASKSTATS_TYPE_TGID) &&
		    value.left >= sizeof(record->id)) {
			memcpy(&record->id, value.at, sizeof(record->id));
			identified = true;
		} else if (type == TASKSTATS_TYPE_STATS) {
			error = read_record(value, record);
			if (error)
				return error;
			found = true;
		}
	}
	return identified && found ? 0 : -EPROTO;
}

static int parse_records(struct cursor body,
			 void (*visit)(const struct proc_taskstats *record, void *context),
			 void *context)
{
	struct proc_taskstats record;
	struct cursor value;
	uint16_t type;
	int error;

	if (body.left < GENL_HDRLEN)
		return -EPROTO;
	body = (struct cursor){ body.at + GENL_HDRLEN, body.left - GENL_HDRLEN };
	while (body.left) {
		error = take_attribute(&body, &type, &value);
		if (error)
			return error;
		if (type != TASKSTATS_TYPE_AGGR_PID && type != TASKSTATS_TYPE_AGGR_TGID)
			continue;
		error = parse_aggregate(value, type == TASKSTATS_TYPE_AGGR_TGID, &record);
		if (error)
			return error;
		visit(&record, context);
	}
	return 0;
}

int taskstats_parse(const void *bytes, size_t length, uint16_t family,
		    void (*visit)(const struct proc_taskstats *record, void *context),
		    void *context)
{
	struct cursor cursor = { bytes, length }, body;
	struct nlmsghdr header;
	int error;

	while (cursor.left) {
		error = take_message(&cursor, &header, &body);
		if (!error)
			error = message_error(&header, body);
		if (!error && header.nlmsg_type == family)
			error = parse_records(body, visit, context);
		if (error)
			return error;
	}
	return 0;
}

int taskstats_parse_family(const void *bytes, size_t length, uint16_t *ret_family)
{
	struct cursor cursor = { bytes, length }, body, value;
	struct nlmsghdr header;
	uint16_t type;
	int error;

	error = take_message(&cursor, &header, &body);
	if (!error)
		error = message_error(&header, body);
	if (error)
		return error;
	if (body.left < GENL_HDRLEN)
		return -EPROTO;
	body = (struct cursor){ body.at + GENL_HDRLEN, body.left - GENL_HDRLEN };
	while (body.left) {
		error = take_attribute(&body, &type, &value);
		if (error)
			return error;
		if (type == CTRL_ATTR_FAMILY_ID && value.left >= sizeof(*ret_family)) {
			memcpy(ret_family, value.at, sizeof(*ret_family));
			return 0;
		}
	}
	return -EPROTO;
}
