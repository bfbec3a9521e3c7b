/* SPDX-License-Identifier: MIT */
/*
 * What a verb is: one constant record. Parsing, help, completions and the checks of the manual
 * all read the same records, so that none of them can know an option that another does not.
 *
 * A verb's file defines its options' variables (static, with the defaults as initial values), a
 * table that points at them, a run function and the record; commands.h and the table in main.c
 * name the record. One process runs one verb, which is why static variables will do.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The exit statuses of every verb. */
enum command_status {
	COMMAND_OK = 0,
	COMMAND_FAILED = 1, /* could not do it, or found what it was asked to look for */
	COMMAND_USAGE = 2,  /* wrong verb, option or operand: nothing was done */
	/*
	 * Of verbs whose findings are a severity (0 ok, 1 warning, 2 critical): cannot tell, which
	 * covers failures and wrong usage; the convention of monitoring plugins.
	 */
	COMMAND_UNKNOWN = 3,
	/* Verbs that run a program end with its status, and with these where there is none. */
	COMMAND_NOT_RUN = 125,   /* failed before the program was started */
	COMMAND_NOT_EXEC = 126,  /* the program is there but cannot be executed */
	COMMAND_NOT_FOUND = 127, /* there is no such program */
};

enum option_type {
	OPTION_FLAG = 1, /* flag: set to true; takes no argument */
	OPTION_STRING,   /* string */
	OPTION_PATH,     /* string; completed as a file name */
	OPTION_COUNT,    /* number; suffixes k, M, G mean powers of 1000 */
	OPTION_SIZE,     /* number, in bytes; suffixes k, M, G, T, P mean powers of 1024 */
	OPTION_DURATION, /* number, in nanoseconds; given as seconds, or with ns, us, ms, s, m, h */
};

struct command_option {
	const char *name; /* long, without its dashes */
	char letter;      /* short, or 0 */
	enum option_type type;
	const char *argument; /* what help calls the argument: "FILE" */
	const char *help;     /* a line, lower case, no full stop */
	union {
		bool *flag;
		const char **string;
		uint64_t *number;
	} value;
	uint64_t min, max; /* of a number; max 0: no bound */
};

/* Where a verb's JSON goes. The option --json is added by the framework. */
enum command_json {
	COMMAND_JSON_NONE,
	COMMAND_JSON_STDOUT, /* --json: instead of text */
	COMMAND_JSON_FILE,   /* --json FILE: beside the text, or instead of it where FILE is "-" */
};

struct command {
	const char *name;
	const char *summary;     /* a line, lower case, no full stop */
	const char *synopsis;    /* what follows "cow NAME" apart from options: "[VERB]"; or NULL */
	const char *description; /* paragraphs, at most 78 columns, a newline at the end; or NULL */
	const struct command_option *options; /* ends with an all-zero entry; or NULL */
	unsigned int min_operands, max_operands;
	const char *const *operands; /* words that complete the first operand, NULL-terminated */
	bool files;                  /* operands, those words aside, are files or directories */
	enum command_json json;
	bool stop_at_operand; /* what follows the first one is a program's arguments */
	bool hidden;          /* not in help */
	int usage_status;     /* on wrong usage; 0: COMMAND_USAGE */
	/* Returns an exit status. The operands are argv[0] to argv[argc - 1]. */
	int (*run)(const struct command *command, int argc, char **argv);
};

/* All verbs, in the order in which help shows them; ends with NULL. Defined in main.c. */
extern const struct command *const command_table[];

const struct command *command_find(const char *name);

/*
 * Calls visit for each option of the verb, its own first, then those that verbs share; a non-zero
 * result stops and is returned.
 */
int command_each_option(const struct command *command,
			int (*visit)(const struct command_option *option, void *context),
			void *context);

/* What the shared options asked for. */
extern bool command_help_wanted;
extern bool command_json_wanted;      /* --json was given */
extern const char *command_json_path; /* its FILE; NULL: standard output */

#endif
