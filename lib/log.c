/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdio.h>

#include "lib/internal.h"

static pthread_rwlock_t sink_lock =
	PTHREAD_RWLOCK_INITIALIZER; /* keeps function and context together */
static cow_log_fn sink;
static void *sink_context;

void cow_log_set(cow_log_fn log, void *context)
{
	pthread_rwlock_wrlock(&sink_lock);
	sink = log;
	sink_context = context;
	pthread_rwlock_unlock(&sink_lock);
}

static _Thread_local bool muted __attribute__((tls_model("initial-exec")));

void log_mute(bool mute)
{
	muted = mute;
}

void log_message(int priority, const char *format, ...)
{
	char message[400];
	void *context;
	cow_log_fn log;
	va_list arguments;

	if (muted)
		return;
	pthread_rwlock_rdlock(&sink_lock);
	log = sink;
	context = sink_context;
	pthread_rwlock_unlock(&sink_lock);
	if (!log)
		return;
	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	log(priority, message, context);
}

const char *cow_version(void)
{
#define TEXT(x)  #x
#define VALUE(x) TEXT(x)
	return VALUE(COW_VERSION_MAJOR) "." VALUE(COW_VERSION_MINOR) "." VALUE(COW_VERSION_PATCH);
}
