// floor v1|v2|none ROOTFS PROGRAM - runs PROGRAM in a container, with the least work that the kernel allows for it.
//
// It makes what `runc spec` describes (namespaces, cgroups with device rules, mounts, devices, masked and read-only paths,
// pivot_root, capabilities, no_new_privs), with everything known beforehand, checks nothing, and cannot be told to do anything
// else. No runtime can be faster; how near it comes is what the bench measures.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define MUST(call)                                                                                                             \
	do {                                                                                                                       \
		if ((call) < 0) {                                                                                                      \
			fprintf(stderr, "floor: %s: %s\n", #call, strerror(errno));                                                        \
			_exit(99);                                                                                                         \
		}                                                                                                                      \
	} while (0)

static const char *const controllers[] = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"};
static const char *const allowed_devices[] = {"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",   "c 1:9 rwm",
                                              "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm", "c *:* m", "b *:* m"};
static const char *const readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
static const char *const masked[] = {"proc/acpi",       "proc/asound",      "proc/kcore", "proc/keys",    "proc/latency_stats",
                                     "proc/timer_list", "proc/sched_debug", "proc/scsi",  "sys/firmware"};
static const struct {
	const char *path;
	int major, minor;
} devices[] = {{"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7}, {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};

enum { NONE, V1, V2 };
static int version;
static char name[64];

static int put(const char *path, const char *value)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	if (file < 0)
		return -1;
	int done = write(file, value, strlen(value));
	close(file);
	return done;
}

static char *cgroup(size_t controller, const char *file)
{
	static char path[256];
	if (version == V2)
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s%s", name, file);
	else
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s%s", controllers[controller], name, file);
	return path;
}

static size_t hierarchies(void)
{
	return version == V1 ? COUNT(controllers) : version == V2;
}

static void make_cgroups(void)
{
	for (size_t i = 0; i < hierarchies(); i++) {
		MUST(mkdir(cgroup(i, ""), 0755));
		if (version == V1 && !strcmp(controllers[i], "cpuset")) {
			put(cgroup(i, "/cpuset.cpus"), "0");
			put(cgroup(i, "/cpuset.mems"), "0");
		}
		if (version == V1 && !strcmp(controllers[i], "devices")) {
			put(cgroup(i, "/devices.deny"), "a");
			for (size_t rule = 0; rule < COUNT(allowed_devices); rule++)
				put(cgroup(i, "/devices.allow"), allowed_devices[rule]);
		}
	}
}

static void remove_cgroups(void)
{
	for (size_t i = 0; i < hierarchies(); i++)
		while (rmdir(cgroup(i, "")) < 0 && errno == EBUSY)
			usleep(100);
}

static void mount_all(const char *rootfs)
{
	const unsigned long safe = MS_NOSUID | MS_NOEXEC | MS_NODEV, again = MS_BIND | MS_REMOUNT | MS_RDONLY;

	MUST(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
	MUST(mount(rootfs, rootfs, 0, MS_BIND | MS_REC, 0));
	MUST(chdir(rootfs));
	MUST(mount("proc", "proc", "proc", safe, 0));
	MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
	mkdir("dev/pts", 0755);
	mkdir("dev/shm", 0755);
	mkdir("dev/mqueue", 0755);
	MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
	MUST(mount("shm", "dev/shm", "tmpfs", safe, "mode=1777,size=65536k"));
	MUST(mount("mqueue", "dev/mqueue", "mqueue", safe, 0));
	MUST(mount("sysfs", "sys", "sysfs", safe | MS_RDONLY, 0));
	if (version == V1) {
		MUST(mount("tmpfs", "sys/fs/cgroup", "tmpfs", safe, "mode=755"));
		for (size_t i = 0; i < COUNT(controllers); i++) {
			char path[128];
			snprintf(path, sizeof path, "sys/fs/cgroup/%s", controllers[i]);
			mkdir(path, 0755);
			MUST(mount(cgroup(i, ""), path, 0, MS_BIND, 0));
			MUST(mount(0, path, 0, again | safe, 0));
		}
		MUST(mount(0, "sys/fs/cgroup", 0, again | safe, 0));
	}
	if (version == V2)
		MUST(mount("cgroup", "sys/fs/cgroup", "cgroup2", safe | MS_RDONLY, 0));
	for (size_t i = 0; i < COUNT(devices); i++)
		mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor));
	symlink("/proc/self/fd", "dev/fd");
	symlink("/proc/self/fd/0", "dev/stdin");
	symlink("/proc/self/fd/1", "dev/stdout");
	symlink("/proc/self/fd/2", "dev/stderr");
	symlink("pts/ptmx", "dev/ptmx");
	for (size_t i = 0; i < COUNT(readonly); i++)
		if (!mount(readonly[i], readonly[i], 0, MS_BIND | MS_REC, 0))
			MUST(mount(0, readonly[i], 0, again | safe, 0));
	for (size_t i = 0; i < COUNT(masked); i++)
		if (mount("dev/null", masked[i], 0, MS_BIND, 0) < 0 && errno == ENOTDIR)
			mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, 0);
	MUST(mount(0, ".", 0, again, 0));
	MUST(syscall(SYS_pivot_root, ".", "."));
	MUST(umount2(".", MNT_DETACH));
	MUST(chdir("/"));
}

static void become(const char *rootfs, char *program)
{
	// A single-threaded process that moves itself waits for no grace period.
	if (version == V1)
		for (size_t i = 0; i < COUNT(controllers); i++)
			MUST(put(cgroup(i, "/tasks"), "0"));
	mount_all(rootfs);
	MUST(sethostname("floor", 5));
	struct rlimit files = {1024, 1024};
	setrlimit(RLIMIT_NOFILE, &files);
	const unsigned kept = 1u << CAP_AUDIT_WRITE | 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE;
	for (int i = 0; i <= CAP_LAST_CAP; i++)
		if (i > 31 || !(kept >> i & 1))
			prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct sets[2] = {{kept, kept, 0}, {0, 0, 0}};
	syscall(SYS_capset, &header, sets);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	char *arguments[] = {program, 0}, *environment[] = {"PATH=/bin", 0};
	MUST(execve(program, arguments, environment));
}

int main(int count, char **arguments)
{
	if (count != 4)
		return 2;
	version = !strcmp(arguments[1], "v1") ? V1 : !strcmp(arguments[1], "v2") ? V2 : NONE;
	snprintf(name, sizeof name, "kelson-floor-%d", getpid());
	make_cgroups();
	struct clone_args clone = {
		.flags = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_VFORK,
		.exit_signal = SIGCHLD,
	};
	if (version == V2) {
		clone.flags |= CLONE_NEWCGROUP | CLONE_INTO_CGROUP;
		clone.cgroup = open(cgroup(0, ""), O_PATH | O_CLOEXEC);
	}
	long child = syscall(SYS_clone3, &clone, sizeof clone);
	if (child == 0) {
		become(arguments[2], arguments[3]);
		_exit(99);
	}
	MUST(child);
	int status;
	waitpid(child, &status, 0);
	remove_cgroups();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}
