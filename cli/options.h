/* SPDX-License-Identifier: MIT */
/* Reads a command line by a verb's option table. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <sys/types.h>

#include "cli/command.h"

/*
 * Parses argv[0..argc-1], what follows the verb, into the variables that the tables name, and
 * moves the operands to the front of argv.
 *
 * Returns 0, or -EINVAL after it has said on standard error what was wrong. Options may stand
 * among the operands, unless the verb stops at the first one; "--" ends them. Names are not
 * abbreviated, so that a later option cannot break a script.
 */
int options_parse(const struct command *command, int argc, char **argv, int *ret_operands);

/* Values as the tables understand them. Return 0, -EINVAL for what is none, or -ERANGE. */
int options_parse_count(const char *text, uint64_t *ret_count);
int options_parse_size(const char *text, uint64_t *ret_bytes);
int options_parse_duration(const char *text, uint64_t *ret_ns);

/* A process ID, of an option or (NULL) an operand. Returns false after a message. */
bool options_parse_pid(const char *option, const char *text, pid_t *ret_pid);

#endif
