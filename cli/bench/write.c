/* SPDX-License-Identifier: MIT */
#include "cli/bench/print.h"
bool write_markdown(const struct documents *documents, const char *path)
{
	(void)documents;
	(void)path;
	return false;
}
bool write_csv(const struct documents *documents, const char *path)
{
	(void)documents;
	(void)path;
	return false;
}
bool write_html(const struct documents *documents, const char *path)
{
	(void)documents;
	(void)path;
	return false;
}
