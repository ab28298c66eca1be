// How long a thread goes without asking the kernel for events: what its event loop was blocked for.
//
// Loaded before a program (LD_PRELOAD). The file that BLOCKED_FILE names holds one number, which whoever measures sets
// to 0 and reads: the longest time in nanoseconds from one epoll_wait's return to the next one's call, of all threads
// of all processes. The clock is the wall's, so what others took of the core meanwhile is in it.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static _Atomic uint64_t *longest;
static int (*wait_for)(int, struct epoll_event *, int, int, const sigset_t *);
static __thread uint64_t since;  // 0 until the first return, and while it waits

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
    *(void **)&wait_for = dlsym(RTLD_NEXT, "epoll_pwait");
    const char *path = getenv("BLOCKED_FILE");
    int file = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *found = mmap(NULL, sizeof *longest, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) longest = found;
    close(file);
}

int epoll_pwait(int epoll, struct epoll_event *events, int most, int timeout, const sigset_t *mask) {
    if (longest != NULL && since != 0) {
        uint64_t took = now() - since, before = atomic_load(longest);
        while (took > before && !atomic_compare_exchange_weak(longest, &before, took)) {
        }
    }
    int found = wait_for(epoll, events, most, timeout, mask);
    if (longest != NULL) since = now();
    return found;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout) {
    return epoll_pwait(epoll, events, most, timeout, NULL);
}
