/* SPDX-License-Identifier: MIT */
#include "tests/fault/injector.h"

#include <assert.h>
#include <errno.h>

const int injected_errors[SYS_CALLS][2] = {
	[SYS_CALL_ALLOC] = { -ENOMEM, -ENOMEM },      [SYS_CALL_MAP] = { -ENOMEM, -ENOMEM },
	[SYS_CALL_PROTECT] = { -ENOMEM, -EACCES },    [SYS_CALL_ADVISE] = { -EINVAL, -ENOMEM },
	[SYS_CALL_MEMFD] = { -EMFILE, -ENFILE },      [SYS_CALL_TRUNCATE] = { -ENOSPC, -EFBIG },
	[SYS_CALL_OPEN] = { -EACCES, -EINVAL },       [SYS_CALL_STATFS] = { -EIO, -ENOSYS },
	[SYS_CALL_READ_AT] = { -EIO, -EIO },          [SYS_CALL_WRITE_AT] = { -EIO, -ENOSPC },
	[SYS_CALL_EVENTFD] = { -EMFILE, -ENFILE },    [SYS_CALL_EPOLL] = { -EMFILE, -ENOSPC },
	[SYS_CALL_USERFAULTFD] = { -EPERM, -ENOSYS }, [SYS_CALL_UFFD_IOCTL] = { -EINVAL, -ENOMEM },
	[SYS_CALL_THREAD] = { -EAGAIN, -EAGAIN },     [SYS_CALL_PAGEMAP] = { -EIO, -EACCES },
	[SYS_CALL_SIGACTION] = { -EINVAL, -EINVAL },
};

struct injector_plan plan;
struct injector_record record;
_Thread_local bool observed;
_Atomic bool storing;

static void record_call(enum sys_call call)
{
	assert(record.count < CALLS_MAX);
	record.calls[record.count].step = record.step;
	record.calls[record.count++].call = call;
}

int inject(enum sys_call call)
{
	bool seen = observed || storing;

	if (record.on && seen && call != SYS_CALL_UNMAP)
		record_call(call);
	if (!seen || plan.left == 0 || call == SYS_CALL_UNMAP ||
	    (plan.only >= 0 && plan.only != (int)call))
		return 0;
	if (--plan.left > 0)
		return 0;
	plan.left = plan.for_good;
	plan.fired = true;
	plan.what = call;
	plan.kinds[call]++;
	assert(injected_errors[call][plan.way] < 0);
	return injected_errors[call][plan.way];
}
