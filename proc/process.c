/* SPDX-License-Identifier: MIT */
#include "proc/process.h"

#include <errno.h>
#include <string.h>

/* The numbers of /proc/PID/stat after the state, by their place in proc(5). */
enum { STAT_PPID = 4, STAT_LAST = 24 };

static const struct {
	int place;
	size_t offset;
} stat_numbers[] = {
	{ STAT_PPID, offsetof(struct proc_stat, ppid) },
	{ 10, offsetof(struct proc_stat, minor_faults) },
	{ 11, offsetof(struct proc_stat, child_minor_faults) },
	{ 12, offsetof(struct proc_stat, major_faults) },
	{ 13, offsetof(struct proc_stat, child_major_faults) },
	{ 14, offsetof(struct proc_stat, user_ticks) },
	{ 15, offsetof(struct proc_stat, system_ticks) },
	{ 20, offsetof(struct proc_stat, threads) },
	{ 22, offsetof(struct proc_stat, start_ticks) },
	{ 23, offsetof(struct proc_stat, virtual_bytes) },
	{ STAT_LAST, offsetof(struct proc_stat, resident_pages) },
};

/* A process may call itself "x) R 1 (": the name ends at the last parenthesis of the file. */
static int take_command(struct text *text, char *command)
{
	const char *close;

	if (!text_take(text, ' ') || !text_take(text, '('))
		return -EINVAL;
	close = memrchr(text->at, ')', text_length(*text));
	if (!close)
		return -EINVAL;
	text_copy(text_of(text->at, (size_t)(close - text->at)), command, PROC_COMMAND_LENGTH);
	text->at = close + 1;
	return 0;
}

static int take_stat_number(struct text *text, int place, struct proc_stat *stat)
{
	struct text word;
	uint64_t value;
	size_t i;

	if (!text_word(text, &word))
		return -EINVAL;
	for (i = 0; i < sizeof(stat_numbers) / sizeof(stat_numbers[0]); i++) {
		if (stat_numbers[i].place != place)
			continue;
		if (text_only_u64(word, &value) < 0)
			return -EINVAL;
		memcpy((char *)stat + stat_numbers[i].offset, &value, sizeof(value));
	}
	return 0;
}

int proc_stat_parse(struct text text, struct proc_stat *ret_stat)
{
	struct proc_stat stat = { 0 };
	struct text state;
	int place, error;

	error = text_u64(&text, 10, &stat.pid);
	if (!error)
		error = take_command(&text, stat.command);
	if (error)
		return error;
	if (!text_word(&text, &state) || text_length(state) != 1)
		return -EINVAL;
	stat.state = *state.at;
	for (place = STAT_PPID; place <= STAT_LAST; place++) {
		error = take_stat_number(&text, place, &stat);
		if (error)
			return error;
	}
	*ret_stat = stat;
	return 0;
}

#define FIELD(type, name, member)                   \
	{                                           \
		name, offsetof(struct type, member) \
	}
#define COUNT(fields) (sizeof(fields) / sizeof((fields)[0]))

static const struct keyed_field status_fields[] = {
	FIELD(proc_status, "VmSize", virtual_bytes),
	FIELD(proc_status, "VmRSS", resident_bytes),
	FIELD(proc_status, "RssAnon", anonymous_bytes),
	FIELD(proc_status, "RssFile", file_bytes),
	FIELD(proc_status, "RssShmem", shmem_bytes),
	FIELD(proc_status, "VmData", data_bytes),
	FIELD(proc_status, "VmPTE", page_table_bytes),
	FIELD(proc_status, "VmSwap", swap_bytes),
	FIELD(proc_status, "HugetlbPages", huge_tlb_bytes),
	FIELD(proc_status, "Threads", threads),
};

/* What is not one number: the hexadecimal sets of capabilities, the four user IDs. */
static int parse_status_line(struct text line, struct proc_status *status)
{
	struct text word;
	bool is_user;

	if (!text_word(&line, &word))
		return 0;
	is_user = text_is(word, "Uid:");
	if (!is_user && !text_is(word, "CapEff:"))
		return 0;
	if (!text_word(&line, &word))
		return -EINVAL;
	if (!is_user)
		return text_u64(&word, 16, &status->effective_capabilities);
	return text_word(&line, &word) ? text_u64(&word, 10, &status->user) : -EINVAL;
}

int proc_status_parse(struct text text, struct proc_status *ret_status)
{
	struct proc_status status;
	struct text line;
	int used, error;

	keyed_clear(status_fields, COUNT(status_fields), &status);
	status.effective_capabilities = 0;
	status.user = KEYED_ABSENT;
	used = keyed_parse(text, status_fields, COUNT(status_fields), KEYED_FIRST, &status);
	if (used < 0)
		return used;
	while (text_line(&text, &line)) {
		error = parse_status_line(line, &status);
		if (error)
			return error;
	}
	*ret_status = status;
	return 0;
}

int proc_statm_parse(struct text text, struct proc_statm *ret_statm)
{
	struct proc_statm statm;
	struct text word[3];
	int i;

	for (i = 0; i < 3; i++)
		if (!text_word(&text, &word[i]))
			return -EINVAL;
	if (text_only_u64(word[0], &statm.virtual_pages) < 0 ||
	    text_only_u64(word[1], &statm.resident_pages) < 0 ||
	    text_only_u64(word[2], &statm.file_pages) < 0)
		return -EINVAL;
	*ret_statm = statm;
	return 0;
}

static const struct keyed_field smaps_fields[] = {
	FIELD(proc_smaps, "Rss", rss_bytes),
	FIELD(proc_smaps, "Pss", pss_bytes),
	FIELD(proc_smaps, "Pss_Anon", pss_anon_bytes),
	FIELD(proc_smaps, "Shared_Clean", shared_clean_bytes),
	FIELD(proc_smaps, "Shared_Dirty", shared_dirty_bytes),
	FIELD(proc_smaps, "Private_Clean", private_clean_bytes),
	FIELD(proc_smaps, "Private_Dirty", private_dirty_bytes),
	FIELD(proc_smaps, "Anonymous", anonymous_bytes),
	FIELD(proc_smaps, "KSM", ksm_bytes),
	FIELD(proc_smaps, "AnonHugePages", huge_anon_bytes),
	FIELD(proc_smaps, "ShmemPmdMapped", huge_shmem_bytes),
	FIELD(proc_smaps, "FilePmdMapped", huge_file_bytes),
	FIELD(proc_smaps, "Shared_Hugetlb", huge_tlb_shared_bytes),
	FIELD(proc_smaps, "Private_Hugetlb", huge_tlb_private_bytes),
	FIELD(proc_smaps, "Swap", swap_bytes),
};

int proc_smaps_parse(struct text text, struct proc_smaps *ret_smaps)
{
	struct proc_smaps smaps;
	int used;

	keyed_clear(smaps_fields, COUNT(smaps_fields), &smaps);
	used = keyed_parse(text, smaps_fields, COUNT(smaps_fields), KEYED_SUM, &smaps);
	if (used < 0)
		return used;
	if (!used)
		return -ENODATA;
	if (smaps.rss_bytes == KEYED_ABSENT || smaps.pss_bytes == KEYED_ABSENT ||
	    smaps.private_clean_bytes == KEYED_ABSENT || smaps.private_dirty_bytes == KEYED_ABSENT)
		return -EINVAL;
	*ret_smaps = smaps;
	return 0;
}
