/* SPDX-License-Identifier: MIT */
/* The verbs' records; each is defined in cmd_<verb>.c. Their order is in main.c. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "cli/command.h"

extern const struct command command_bench;
extern const struct command command_completion;
extern const struct command command_demo;
extern const struct command command_doctor;
extern const struct command command_file;
extern const struct command command_help;
extern const struct command command_probe;
extern const struct command command_ps;
extern const struct command command_stat;
extern const struct command command_store;
extern const struct command command_version;
extern const struct command command_walk;

#endif
