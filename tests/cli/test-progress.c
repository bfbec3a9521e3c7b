/* SPDX-License-Identifier: MIT */
/* The progress line, on a terminal of our own and on what is none. */
#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/tap.h"

#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"

const struct command *const command_table[] = { NULL };

static int saved_stderr;
static int reader; /* what standard error shows */
static char shown[8192];

static void redirect(int fd, int reading_end)
{
	saved_stderr = dup(STDERR_FILENO);
	if (saved_stderr < 0 || dup2(fd, STDERR_FILENO) < 0)
		bail("dup: %s", strerror(errno));
	close(fd);
	reader = reading_end;
	fcntl(reader, F_SETFL, O_NONBLOCK);
	setenv("TERM", "xterm", 1);
	setenv("NO_COLOR", "1", 1);
}

static void redirect_to_terminal(void)
{
	int master, slave;

	if (openpty(&master, &slave, NULL, NULL, NULL) < 0)
		bail("openpty: %s", strerror(errno));
	redirect(slave, master);
}

static void redirect_to_pipe(void)
{
	int pipes[2];

	if (pipe(pipes) < 0)
		bail("pipe: %s", strerror(errno));
	redirect(pipes[1], pipes[0]);
}

/* Ends the redirection and gives what was shown. */
static const char *end_redirection(void)
{
	size_t length = 0;
	ssize_t n;

	fflush(stderr);
	while ((n = read(reader, shown + length, sizeof(shown) - 1 - length)) > 0)
		length += (size_t)n;
	shown[length] = '\0';
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(reader);
	return shown;
}

static unsigned int count(const char *text, const char *part)
{
	unsigned int found = 0;

	for (; (text = strstr(text, part)); text += strlen(part))
		found++;
	return found;
}

TEST(a_terminal_sees_a_line_that_goes_away)
{
	uint64_t i;

	redirect_to_terminal();
	progress_begin("loading", 1000000);
	for (i = 0; i < 100000; i++)
		progress_update(i);
	progress_end();
	end_redirection();
	ok(strstr(shown, "\rloading: 0 of 1,000,000 (0 %)\033[K"), "the first line");
	ok(count(shown, "loading") <= 20, "redrawn %u times", count(shown, "loading"));
	ok(strlen(shown) >= 4 && strcmp(shown + strlen(shown) - 4, "\r\033[K") == 0,
	   "erased at the end");
}

TEST(messages_take_the_place_of_the_line)
{
	const char *message;

	redirect_to_terminal();
	progress_begin("loading", 0);
	complain("something is odd");
	progress_end();
	end_redirection();
	message = strstr(shown, "\r\033[Kcow: something is odd\r\n");
	ok(message, "the line is erased first");
	ok(message && !strstr(message + 4, "\033[K"), "and not a second time");
}

TEST(a_pipe_sees_no_progress)
{
	redirect_to_pipe();
	progress_begin("loading", 10);
	progress_update(5);
	progress_end();
	is_str(end_redirection(), "", "nothing");
}

TEST(a_dumb_terminal_sees_no_progress)
{
	redirect_to_terminal();
	setenv("TERM", "dumb", 1);
	progress_begin("loading", 10);
	progress_end();
	is_str(end_redirection(), "", "nothing");
}

TAP_MAIN(CASE(a_terminal_sees_a_line_that_goes_away), CASE(messages_take_the_place_of_the_line),
	 CASE(a_pipe_sees_no_progress), CASE(a_dumb_terminal_sees_no_progress))
