/* SPDX-License-Identifier: MIT */
/* What the checks share: findings, and reading files that may not be there. */
#include "cli/doctor/doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/output.h"

struct finding *doctor_add(struct doctor *doctor, const char *id, enum level level,
			   enum evidence evidence)
{
	struct finding *finding;

	if (doctor->count == doctor->room) {
		doctor->room = doctor->room ? 2 * doctor->room : 16;
		doctor->findings = output_realloc(doctor->findings,
						  doctor->room * sizeof(*finding));
	}
	finding = &doctor->findings[doctor->count++];
	*finding = (struct finding){ .id = id, .level = level, .evidence = evidence };
	return finding;
}

#define DEFINE_SETTER(member)                                                           \
	void finding_##member(struct finding *finding, const char *format, ...)         \
	{                                                                               \
		va_list arguments;                                                      \
                                                                                        \
		va_start(arguments, format);                                            \
		vsnprintf(finding->member, sizeof(finding->member), format, arguments); \
		va_end(arguments);                                                      \
	}

DEFINE_SETTER(value)
DEFINE_SETTER(meaning)
DEFINE_SETTER(advice)
DEFINE_SETTER(reason)

bool doctor_read(struct doctor *doctor, const char *path, struct text *ret_text)
{
	int error = proc_root_read(&doctor->root, path, &doctor->buffer, ret_text);

	if (error == -ENOENT || error == -ENOTDIR)
		return false;
	doctor->looked++;
	doctor->unreadable += error != 0;
	return !error;
}

bool doctor_read_u64(struct doctor *doctor, const char *path, uint64_t *ret_value)
{
	struct text text;

	if (!doctor_read(doctor, path, &text))
		return false;
	if (text_only_u64(text, ret_value) == 0)
		return true;
	doctor->unreadable++;
	return false;
}

bool doctor_read_word(struct doctor *doctor, const char *path, char *word, size_t room)
{
	struct text text, line;

	if (!doctor_read(doctor, path, &text) || !text_line(&text, &line))
		return false;
	proc_choice_parse(line, &line);
	text_copy(line, word, room);
	return true;
}

/* What container engines leave for those inside to know. */
bool doctor_is_container(struct doctor *doctor)
{
	static const char *const marks[] = { ".dockerenv", "run/.containerenv",
					     "run/systemd/container" };
	size_t i;
	int fd;

	for (i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		fd = proc_root_open_file(&doctor->root, marks[i]);
		if (fd >= 0) {
			close(fd);
			return true;
		}
	}
	return false;
}

enum level doctor_worst(const struct doctor *doctor)
{
	enum level worst = LEVEL_OK;
	size_t i;

	for (i = 0; i < doctor->count; i++)
		if (doctor->findings[i].level > worst)
			worst = doctor->findings[i].level;
	return worst;
}
