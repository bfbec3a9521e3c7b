/* SPDX-License-Identifier: MIT */
/* Help and suggestions, made from the verbs' records. */
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include <stdio.h>

#include "cli/command.h"

void help_print_overview(FILE *stream);
void help_print_command(const struct command *command, FILE *stream);

/* Say on standard error that there is no such verb or option, and which one may be meant. */
void help_complain_verb(const char *name);
void help_complain_option(const struct command *command, const char *name, size_t length);

/*
 * How many letters have to be inserted, deleted, replaced or swapped to turn one word into the
 * other. Words of more than 31 letters are as far from everything as they are long.
 */
unsigned int help_distance(const char *left, const char *right);

#endif
