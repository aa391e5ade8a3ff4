/* A wall clock that tests can move, for every dynamically linked process that loads this library.
 *
 * LD_PRELOAD names the library, SHIFTED_CLOCK a file that begins with the nanoseconds, a native
 * int64, by which the wall clock is ahead. The file is mapped, so that all processes move at once.
 *
 * Only the wall clock moves. Monotonic clocks, file times and the kernel's timers do not, so an
 * absolute time of the wall clock is translated back before the kernel waits for it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS INT64_C(1000000000)

/* As a time of the wall clock this is 2001, as the age of a running machine it is 31 years. */
#define FIRST_WALL_S 1000000000

/* The C library's own function; looking it up costs a microsecond, so it is kept. */
#define NEXT(name)                                                                                 \
    ({                                                                                             \
        static __typeof__(&name) found;                                                            \
        if (!found)                                                                                \
            found = (__typeof__(&name))next(#name);                                                \
        found;                                                                                     \
    })

static const volatile int64_t *ahead;

static void *next(const char *name)
{
    /* glibc on x86_64 has two of this one, and dlsym may find the old one, which is another type. */
    void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
    return found ? found : dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void map_file(void)
{
    const char *path = getenv("SHIFTED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        ahead = mapped;
}

static struct timespec moved(struct timespec at, int64_t by_ns)
{
    int64_t ns = at.tv_nsec + by_ns % SECOND_NS;
    at.tv_sec += by_ns / SECOND_NS + (ns >= SECOND_NS) - (ns < 0);
    at.tv_nsec = ns >= SECOND_NS ? ns - SECOND_NS : ns < 0 ? ns + SECOND_NS : ns;
    return at;
}

static int64_t ahead_ns(void)
{
    return ahead ? *ahead : 0;
}

static struct timespec real(const struct timespec *at)
{
    return moved(*at, -ahead_ns());
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = NEXT(clock_gettime)(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        *now = moved(*now, ahead_ns());
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec at;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &at))
        return -1;
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec at;
    if (clock_gettime(CLOCK_REALTIME, &at))
        return -1;
    if (now)
        *now = at.tv_sec;
    return at.tv_sec;
}

int timespec_get(struct timespec *now, int base)
{
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, now) ? base : 0;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    struct timespec at = real(until);
    return NEXT(sem_timedwait)(semaphore, &at);
}

int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict until)
{
    struct timespec at = clock == CLOCK_REALTIME ? real(until) : *until;
    return NEXT(sem_clockwait)(semaphore, clock, &at);
}

/* The clock is an attribute of the condition, which cannot be asked for it. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    struct timespec at = until->tv_sec >= FIRST_WALL_S ? real(until) : *until;
    return NEXT(pthread_cond_timedwait)(condition, mutex, &at);
}

int pthread_cond_clockwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           clockid_t clock, const struct timespec *restrict until)
{
    struct timespec at = clock == CLOCK_REALTIME ? real(until) : *until;
    return NEXT(pthread_cond_clockwait)(condition, mutex, clock, &at);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left)
{
    struct timespec at = clock == CLOCK_REALTIME && (flags & TIMER_ABSTIME) ? real(until) : *until;
    return NEXT(clock_nanosleep)(clock, flags, &at, left);
}
