/* Stands before the system's clock: it goes forwards and backwards by days, in turn, from call to call. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    static unsigned calls;
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, now);
    if (clock == CLOCK_REALTIME)
        now->tv_sec += ((int)(++calls % 3) - 1) * 40 * 86400;
    return answer;
}
