/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdio.h>

#include "lib/internal.h"

static pthread_rwlock_t sink_lock =
	PTHREAD_RWLOCK_INITIALIZER; /* keeps function and context together */
static _Atomic(cow_log_fn) sink;
static void *sink_context;

void cow_log_set(cow_log_fn log, void *context)
{
	pthread_rwlock_wrlock(&sink_lock);
	/* In between there is none: so a child of fork() has none, or both. */
	sink = NULL;
	sink_context = context;
	sink = log;
	pthread_rwlock_unlock(&sink_lock);
}

void log_after_fork(void)
{
	pthread_rwlock_init(&sink_lock, NULL);
}

static _Thread_local bool muted __attribute__((tls_model("initial-exec")));

void log_mute(bool mute)
{
	muted = mute;
}

static cow_log_fn get_sink(void **ret_context)
{
	cow_log_fn log;

	if (muted)
		return NULL;
	pthread_rwlock_rdlock(&sink_lock);
	log = sink;
	*ret_context = sink_context;
	pthread_rwlock_unlock(&sink_lock);
	return log;
}

bool log_is_heard(void)
{
	void *context;

	return get_sink(&context) != NULL;
}

__attribute__((format(printf, 3, 0))) static void say(int priority, const char *prefix,
						      const char *format, va_list arguments)
{
	char message[400];
	void *context;
	cow_log_fn log = get_sink(&context);
	size_t length = strlen(prefix);

	if (!log)
		return;
	memcpy(message, prefix, length);
	vsnprintf(message + length, sizeof(message) - length, format, arguments);
	log(priority, message, context);
}

void log_message(int priority, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say(priority, "", format, arguments);
	va_end(arguments);
}

int log_refusal(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say(LOG_ERR, "libcow: ", format, arguments);
	va_end(arguments);
	return -EINVAL;
}

const char *cow_version(void)
{
#define TEXT(x)  #x
#define VALUE(x) TEXT(x)
	return VALUE(COW_VERSION_MAJOR) "." VALUE(COW_VERSION_MINOR) "." VALUE(COW_VERSION_PATCH);
}
