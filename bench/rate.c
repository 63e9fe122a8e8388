// rate WORKERS JOBS COMMAND [ARG...] - runs the command JOBS times, by WORKERS processes at once, and prints the nanoseconds.
//
// `@` in an argument becomes the job's number. A command that fails ends the measurement with its status.
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static char *numbered(const char *argument, int job)
{
	char *text, *at = strchr(argument, '@');
	if (!at)
		return (char *)argument;
	if (asprintf(&text, "%.*s%d%s", (int)(at - argument), argument, job, at + 1) < 0)
		abort();
	return text;
}

static int work(int jobs, int count, char **command)
{
	int job;
	while (read(jobs, &job, sizeof job) == sizeof job) {
		char *arguments[count + 1];
		pid_t child;
		int status;
		for (int i = 0; i < count; i++)
			arguments[i] = numbered(command[i], job);
		arguments[count] = NULL;
		if (posix_spawn(&child, arguments[0], NULL, NULL, arguments, environ) || waitpid(child, &status, 0) < 0)
			return 99;
		if (status)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
	}
	return 0;
}

int main(int count, char **arguments)
{
	if (count < 4)
		return 2;
	int workers = atoi(arguments[1]), jobs = atoi(arguments[2]), pipe_ends[2], failed = 0;
	// All of them fit into a pipe, which a worker reads one by one.
	if (pipe(pipe_ends))
		return 2;
	for (int job = 0; job < jobs; job++)
		if (write(pipe_ends[1], &job, sizeof job) != sizeof job)
			return 2;
	close(pipe_ends[1]);
	long long begin = now();
	for (int worker = 0; worker < workers; worker++)
		if (fork() == 0)
			_exit(work(pipe_ends[0], count - 3, arguments + 3));
	for (int worker = 0; worker < workers; worker++) {
		int status;
		wait(&status);
		failed = failed ? failed : WEXITSTATUS(status);
	}
	printf("%lld\n", now() - begin);
	return failed;
}
