// Writes when its first instruction ran: the struct timespec of CLOCK_MONOTONIC, as it is.
static long call(long number, long first, void *second, long third)
{
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(first), "S"(second), "d"(third) : "rcx", "r11", "memory");
	return result;
}

void _start(void)
{
	long time[2];
	call(228, 1, time, 0); // clock_gettime
	call(1, 1, time, sizeof time); // write
	call(60, 0, 0, 0); // exit
	for (;;)
		;
}
