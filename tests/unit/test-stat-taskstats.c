/* SPDX-License-Identifier: MIT */
/* The parser of taskstats: records as kernels make them, and what no kernel would send. */
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/taskstats.h>

#include "proc/taskstats.h"
#include "tests/tap.h"

#define FAMILY 29

struct message {
	unsigned char bytes[2048];
	size_t length;
};

static void append(struct message *message, const void *bytes, size_t length)
{
	memcpy(message->bytes + message->length, bytes, length);
	message->length += length;
	while (message->length % 4)
		message->bytes[message->length++] = 0;
}

/* Begins an attribute; the caller ends it when its content is there. */
static size_t begin_attribute(struct message *message, uint16_t type)
{
	const struct nlattr header = { .nla_type = type };
	size_t at = message->length;

	append(message, &header, sizeof(header));
	return at;
}

static void end_attribute(struct message *message, size_t at)
{
	uint16_t length = (uint16_t)(message->length - at);

	memcpy(message->bytes + at, &length, sizeof(length));
}

static void set_length(struct message *message)
{
	uint32_t length = (uint32_t)message->length;

	memcpy(message->bytes, &length, sizeof(length));
}

static struct taskstats sample_record(uint16_t version)
{
	struct taskstats raw = {
		.version = version,
		.ac_comm = "worker",
		.ac_pid = 12,
		.ac_tgid = 11,
		.ac_ppid = 3,
		.ac_minflt = 70,
		.ac_majflt = 2,
		.wpcopy_count = 400000,
		.wpcopy_delay_total = 123456789,
	};

	return raw;
}

/* A record, cut to so many bytes. */
static struct message make(uint16_t version, bool process, size_t record_length)
{
	const struct nlmsghdr netlink = { .nlmsg_type = FAMILY };
	const struct genlmsghdr generic = { .cmd = TASKSTATS_CMD_NEW };
	struct taskstats raw = sample_record(version);
	struct message message = { .length = 0 };
	const uint32_t id = process ? 11 : 12;
	size_t outer, inner;

	append(&message, &netlink, sizeof(netlink));
	append(&message, &generic, sizeof(generic));
	outer = begin_attribute(&message,
				process ? TASKSTATS_TYPE_AGGR_TGID : TASKSTATS_TYPE_AGGR_PID);
	inner = begin_attribute(&message, process ? TASKSTATS_TYPE_TGID : TASKSTATS_TYPE_PID);
	append(&message, &id, sizeof(id));
	end_attribute(&message, inner);
	inner = begin_attribute(&message, TASKSTATS_TYPE_STATS);
	append(&message, &raw, record_length);
	end_attribute(&message, inner);
	end_attribute(&message, outer);
	set_length(&message);
	return message;
}

static struct proc_taskstats seen;
static unsigned int visits;

static void remember(const struct proc_taskstats *record, void *context)
{
	seen = *record;
	visits++;
}

static int parse(const struct message *message)
{
	visits = 0;
	return taskstats_parse(message->bytes, message->length, FAMILY, remember, NULL);
}

TEST(thread_record)
{
	struct message message = make(13, false, sizeof(struct taskstats));

	is_errno(parse(&message), 0, "parsed");
	is_u64(visits, 1, "records");
	ok(!seen.process, "of a thread");
	is_u64(seen.id, 12, "thread");
	is_u64(seen.tgid, 11, "process");
	is_u64(seen.parent, 3, "parent");
	is_str(seen.command, "worker", "command");
	is_u64(seen.minor_faults, 70, "minor faults");
	is_u64(seen.major_faults, 2, "major faults");
	ok(seen.has_copies, "copies are reported");
	is_u64(seen.copies, 400000, "copies");
	is_u64(seen.copy_ns, 123456789, "their time");
}

TEST(process_record)
{
	struct message message = make(16, true, sizeof(struct taskstats));

	is_errno(parse(&message), 0, "parsed");
	ok(seen.process, "of a process");
	is_u64(seen.id, 11, "process");
}

TEST(longer_records_of_later_kernels)
{
	struct message message = { .length = 0 }, usual = make(16, false, sizeof(struct taskstats));
	uint16_t outer, inner;
	size_t extra = 256;

	/* The record grows at its end: its attribute and the one around it grow with it. */
	memcpy(message.bytes, usual.bytes, usual.length);
	message.length = usual.length + extra;
	memcpy(&outer, message.bytes + 20, sizeof(outer));
	memcpy(&inner, message.bytes + 32, sizeof(inner));
	outer = (uint16_t)(outer + extra);
	inner = (uint16_t)(inner + extra);
	memcpy(message.bytes + 20, &outer, sizeof(outer));
	memcpy(message.bytes + 32, &inner, sizeof(inner));
	set_length(&message);
	is_errno(parse(&message), 0, "parsed");
	is_u64(seen.copies, 400000, "copies");
}

TEST(kernels_without_copies)
{
	struct message message = make(10, false, offsetof(struct taskstats, ac_tgid));

	is_errno(parse(&message), 0, "parsed");
	ok(!seen.has_copies, "no copies are reported");
	is_u64(seen.tgid, 0, "no process is named");
	is_u64(seen.minor_faults, 70, "faults are");
}

TEST(shifted_version_is_refused)
{
	struct message message = make(15, false, sizeof(struct taskstats));

	is_errno(parse(&message), -EPROTONOSUPPORT, "version 15");
	is_u64(visits, 0, "records");
}

TEST(errors_of_the_kernel)
{
	const struct nlmsghdr netlink = { .nlmsg_type = NLMSG_ERROR };
	struct message message = { .length = 0 };
	int32_t error = -EPERM;

	append(&message, &netlink, sizeof(netlink));
	append(&message, &error, sizeof(error));
	set_length(&message);
	is_errno(parse(&message), -EPERM, "an error");
	error = 0;
	memcpy(message.bytes + sizeof(netlink), &error, sizeof(error));
	is_errno(parse(&message), 0, "an acknowledgement");
	error = 7;
	memcpy(message.bytes + sizeof(netlink), &error, sizeof(error));
	is_errno(parse(&message), 0, "no error of ours");
	message.length = sizeof(netlink);
	set_length(&message);
	is_errno(parse(&message), -EPROTO, "an error without its number");
}

TEST(other_families_are_passed_over)
{
	struct message message = make(13, false, sizeof(struct taskstats));
	uint16_t type = FAMILY + 1;

	memcpy(message.bytes + offsetof(struct nlmsghdr, nlmsg_type), &type, sizeof(type));
	is_errno(parse(&message), 0, "parsed");
	is_u64(visits, 0, "records");
}

/* Exactly as large as what is parsed, so that a sanitizer sees each byte too many. */
static int parse_exactly(const struct message *message, size_t length)
{
	unsigned char *bytes = malloc(length ? length : 1);
	int result;

	memcpy(bytes, message->bytes, length);
	result = taskstats_parse(bytes, length, FAMILY, remember, NULL);
	free(bytes);
	return result;
}

TEST(cut_anywhere)
{
	struct message message = make(13, false, sizeof(struct taskstats));
	size_t length;

	for (length = 1; length < message.length; length++)
		ok(parse_exactly(&message, length) < 0, "cut to %zu bytes", length);
}

/* Any byte may be anything: it parses or it does not, but reads nothing beyond its end. */
TEST(any_byte_anything)
{
	struct message message = make(13, false, sizeof(struct taskstats)), broken;
	size_t at, value;
	uint16_t family;

	for (at = 0; at < message.length; at++)
		for (value = 0; value < 256; value++) {
			broken = message;
			broken.bytes[at] = (unsigned char)value;
			parse_exactly(&broken, broken.length);
			taskstats_parse_family(broken.bytes, broken.length, &family);
		}
	ok(true, "no crash");
}

TEST(names_without_an_end)
{
	struct message message = make(13, false, sizeof(struct taskstats));

	memset(message.bytes + 36 + offsetof(struct taskstats, ac_comm), 'x', TS_COMM_LEN);
	is_errno(parse(&message), 0, "parsed");
	is_u64(strlen(seen.command), TASKSTATS_COMMAND - 1, "length of the name");
}

TEST(family)
{
	const struct nlmsghdr netlink = { .nlmsg_type = GENL_ID_CTRL };
	const struct genlmsghdr generic = { .cmd = CTRL_CMD_NEWFAMILY };
	const uint16_t number = 29;
	struct message message = { .length = 0 };
	uint16_t found = 0;
	size_t at;

	append(&message, &netlink, sizeof(netlink));
	append(&message, &generic, sizeof(generic));
	at = begin_attribute(&message, CTRL_ATTR_FAMILY_NAME);
	append(&message, TASKSTATS_GENL_NAME, sizeof(TASKSTATS_GENL_NAME));
	end_attribute(&message, at);
	set_length(&message);
	is_errno(taskstats_parse_family(message.bytes, message.length, &found), -EPROTO,
		 "unnumbered");
	is_u64(found, 0, "untouched");
	at = begin_attribute(&message, CTRL_ATTR_FAMILY_ID);
	append(&message, &number, sizeof(number));
	end_attribute(&message, at);
	set_length(&message);
	is_errno(taskstats_parse_family(message.bytes, message.length, &found), 0, "numbered");
	is_u64(found, number, "number");
}

TAP_MAIN(CASE(thread_record), CASE(process_record), CASE(longer_records_of_later_kernels),
	 CASE(kernels_without_copies), CASE(shifted_version_is_refused), CASE(errors_of_the_kernel),
	 CASE(other_families_are_passed_over), CASE(cut_anywhere), CASE(any_byte_anything),
	 CASE(names_without_an_end), CASE(family))
