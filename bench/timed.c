// timed FD COMMAND [ARG...] - runs COMMAND and writes one line of figures to descriptor FD:
// wall clock (ns), exit status, user and system time of everything it left to be waited for (us), its own peak resident size and
// the largest of all (KiB), page faults of all that took no I/O, and when it began (ns, CLOCK_MONOTONIC).
//
// It is small and static, so that the peak resident size that COMMAND inherits from it before execve says nothing.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long microseconds(struct timeval time)
{
	return time.tv_sec * 1000000L + time.tv_usec;
}

static long nanoseconds(struct timespec time)
{
	return time.tv_sec * 1000000000L + time.tv_nsec;
}

int main(int count, char **arguments)
{
	if (count < 3)
		return 2;
	int out = atoi(arguments[1]), status = 0;
	struct timespec begin, end;
	struct rusage own, all;

	fcntl(out, F_SETFD, FD_CLOEXEC);
	// Helpers that a runtime leaves behind are counted too.
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	pid_t child = vfork();
	if (child == 0) {
		execv(arguments[2], arguments + 2);
		_exit(127);
	}
	for (;;) {
		pid_t ended = wait4(child, &status, 0, &own);
		if (ended == child || ended < 0)
			break;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	getrusage(RUSAGE_CHILDREN, &all);
	dprintf(out, "%ld %d %ld %ld %ld %ld %ld\n", nanoseconds(end) - nanoseconds(begin),
	        WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
	        microseconds(all.ru_utime) + microseconds(all.ru_stime), own.ru_maxrss, all.ru_maxrss, all.ru_minflt,
	        nanoseconds(begin));
	return 0;
}
