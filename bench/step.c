// step OUT LO HI COMMAND [ARG...] - runs COMMAND instruction by instruction and writes which of its addresses from LO to HI
// each of its processes was at: a line "PROCESS ADDRESS" each, processes counted from 0 in the order of their birth.
//
// A process that executes another program is let go, and so is who still lives when COMMAND itself has ended.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 64 };

static struct {
	pid_t pid;
	unsigned char *seen;
} processes[MOST];
static int count;

static unsigned char *seen_by(pid_t pid, size_t size)
{
	int i = count;
	while (i > 0 && processes[i - 1].pid != pid)
		i--;
	if (i == 0) {
		if (count == MOST) {
			fprintf(stderr, "step: more than %d processes\n", MOST);
			exit(2);
		}
		processes[count].pid = pid;
		processes[count].seen = calloc(1, size);
		i = ++count;
	}
	return processes[i - 1].seen;
}

int main(int argc, char **argv)
{
	if (argc < 5) {
		fprintf(stderr, "usage: step OUT LO HI COMMAND [ARG...]\n");
		return 2;
	}
	unsigned long low = strtoul(argv[2], NULL, 16), high = strtoul(argv[3], NULL, 16);
	pid_t first = fork();
	if (first == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execv(argv[4], argv + 4);
		perror(argv[4]);
		_exit(127);
	}
	int status, code = 0, began = 0, has_ended = 0;
	waitpid(first, &status, 0);
	ptrace(PTRACE_SETOPTIONS, first, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC);
	ptrace(PTRACE_CONT, first, 0, 0);
	for (;;) {
		pid_t pid = waitpid(-1, &status, __WALL);
		if (pid < 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		if (!WIFSTOPPED(status)) {
			if (pid == first) {
				code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
				has_ended = 1;
				// Only who is stopped can be let go.
				for (int i = 0; i < count; i++)
					kill(processes[i].pid, SIGSTOP);
			}
			continue;
		}
		int signal = WSTOPSIG(status), event = status >> 16;
		if (event == PTRACE_EVENT_EXEC && began++) {
			ptrace(PTRACE_DETACH, pid, 0, 0);
			continue;
		}
		if (signal == SIGSTOP && has_ended) {
			ptrace(PTRACE_DETACH, pid, 0, 0);
			continue;
		}
		if (event || signal == SIGTRAP || signal == SIGSTOP)
			signal = 0;
		struct user_regs_struct registers;
		if (ptrace(PTRACE_GETREGS, pid, 0, &registers) == 0 && registers.rip >= low && registers.rip < high)
			seen_by(pid, high - low)[registers.rip - low] = 1;
		ptrace(PTRACE_SINGLESTEP, pid, 0, signal);
	}
	FILE *out = fopen(argv[1], "a");
	if (!out) {
		perror(argv[1]);
		return 2;
	}
	for (int i = 0; i < count; i++)
		for (unsigned long at = 0; at < high - low; at++)
			if (processes[i].seen[at])
				fprintf(out, "%d %lx\n", i, low + at);
	if (fclose(out)) {
		perror(argv[1]);
		return 2;
	}
	return code;
}
