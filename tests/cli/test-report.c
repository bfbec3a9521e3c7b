/* SPDX-License-Identifier: MIT */
/* JSON reports: their text, and that a file is written whole or not at all. */
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tap.h"

#include "cli/command.h"
#include "cli/report.h"

#include <json-c/json.h>

/* The command's library asks for the table of verbs; no verb is run here. */
const struct command *const command_table[] = { NULL };

static char directory[] = "/tmp/test-report.XXXXXX";
static char path[128];

static void clean_up(void)
{
	unlink(path);
	rmdir(directory);
}

/* Every case begins with it, since each may run alone. What is complained about goes nowhere. */
static void prepare(void)
{
	if (path[0])
		return;
	if (!mkdtemp(directory))
		bail("mkdtemp: %s", strerror(errno));
	snprintf(path, sizeof(path), "%s/report.json", directory);
	atexit(clean_up);
	umask(022);
	if (!freopen("/dev/null", "w", stderr))
		bail("/dev/null: %s", strerror(errno));
}

static unsigned int count_files(void)
{
	DIR *stream = opendir(directory);
	struct dirent *entry;
	unsigned int count = 0;

	while (stream && (entry = readdir(stream)))
		count += entry->d_name[0] != '.';
	if (stream)
		closedir(stream);
	return count;
}

static void write_text(const char *text)
{
	FILE *file = fopen(path, "w");

	if (!file || fputs(text, file) < 0 || fclose(file))
		bail("%s: %s", path, strerror(errno));
}

static const char *read_text(void)
{
	static char text[4096];
	FILE *file = fopen(path, "r");
	size_t length;

	if (!file)
		return NULL;
	length = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[length] = '\0';
	return text;
}

TEST(values_keep_to_json)
{
	json_object *report = report_new("test"), *list;

	report_add_unsigned(report, "large", UINT64_MAX);
	report_add_signed(report, "small", INT64_MIN);
	report_add_double(report, "ratio", 2.0 / 3, 3);
	report_add_double(report, "infinite", INFINITY, 3);
	report_add_double(report, "none", NAN, 3);
	report_add_string(report, "bytes", "a\xff/\xc3\xa9\xed\xa0\x80\"\n");
	report_add_string(report, "absent", NULL);
	list = report_add_array(report, "list");
	report_add_bool(list, NULL, true);
	report_add_object(list, NULL);
	is_str(json_object_to_json_string_ext(report, JSON_C_TO_STRING_PLAIN |
							      JSON_C_TO_STRING_NOSLASHESCAPE),
	       "{\"schema\":\"cow-test/1\",\"large\":18446744073709551615,"
	       "\"small\":-9223372036854775808,\"ratio\":0.667,\"infinite\":null,\"none\":null,"
	       "\"bytes\":\"a\xef\xbf\xbd/\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\\\"\\n\","
	       "\"absent\":null,\"list\":[true,{}]}",
	       "the text");
	json_object_put(report);
}

TEST(a_file_is_replaced_whole)
{
	json_object *report = report_new("test");
	struct stat status;

	prepare();
	write_text("an old and longer report that must not shine through");
	ok(report_check_path(path), "can be written later");
	ok(report_write(report, path), "written");
	is_str(read_text(), "{\n  \"schema\": \"cow-test/1\"\n}\n", "the new text");
	is_u64(count_files(), 1, "no other file is left");
	if (ok(stat(path, &status) == 0, "stat"))
		is_u64(status.st_mode & 0777, 0644, "readable as the umask allows");
	json_object_put(report);
}

TEST(a_failed_write_leaves_the_old_file)
{
	struct rlimit saved, none;
	json_object *report = report_new("test");

	prepare();
	write_text("old");
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &saved);
	none = saved;
	none.rlim_cur = 1;
	setrlimit(RLIMIT_FSIZE, &none);
	ok(!report_write(report, path), "the disk is full");
	setrlimit(RLIMIT_FSIZE, &saved);
	is_str(read_text(), "old", "the old text");
	is_u64(count_files(), 1, "no partial file is left");
	json_object_put(report);
}

TEST(a_link_is_followed)
{
	json_object *report = report_new("test");
	char link[160];
	struct stat status;

	prepare();
	snprintf(link, sizeof(link), "%s/link", directory);
	write_text("old");
	ok(symlink("report.json", link) == 0, "symlink");
	ok(report_write(report, link), "written through the link");
	ok(lstat(link, &status) == 0 && S_ISLNK(status.st_mode), "the link stays");
	is_str(read_text(), "{\n  \"schema\": \"cow-test/1\"\n}\n", "its target is new");
	unlink(link);
	json_object_put(report);
}

TEST(what_is_no_file_is_written_to)
{
	json_object *report = report_new("test");
	struct stat status;

	prepare();
	ok(report_write(report, "/dev/null"), "a device");
	ok(stat("/dev/null", &status) == 0 && S_ISCHR(status.st_mode), "is still there");
	ok(!report_write(report, "/dev/full"), "a full device fails");
	json_object_put(report);
}

TEST(impossible_paths_are_found_early)
{
	prepare();
	ok(report_check_path(NULL), "standard output");
	ok(!report_check_path(directory), "a directory");
	ok(!report_check_path("/nonexistent/report.json"), "no such directory");
}

TAP_MAIN(CASE(values_keep_to_json), CASE(a_file_is_replaced_whole),
	 CASE(a_failed_write_leaves_the_old_file), CASE(a_link_is_followed),
	 CASE(what_is_no_file_is_written_to), CASE(impossible_paths_are_found_early))
