/* Stands between a program and the C library (LD_PRELOAD), and sees each call that changes the disk below one folder,
   whoever makes it: Python, Arrow or DuckDB. It counts them. At a given one it ends the process, or there is no room
   from then on. A trace tells each before it happens: what, where, and for a sync how many bytes are safe after it.
   It also sends the clock on the wall backwards, by a step at each look. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { COUNT, DIE, FULL };
#define DIED 70
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static int trace = -1, kind;
static long count, fatal, back, looks;

void faults_arm(const char *folder, const char *file, int what, long at) {
    snprintf(root, sizeof root, "%s", folder);
    count = 0, fatal = at, kind = what;
    trace = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

long faults_disarm(void) {
    if (trace >= 0) syscall(SYS_close, trace);
    trace = -1;
    return count;
}

void faults_clock(long seconds) { back = seconds; }

/* The path below the folder, "" for the folder itself and for "", NULL for what lies elsewhere. */
static const char *below(const char *path) {
    size_t length = strlen(root);
    if (!path[0]) return path;
    if (strncmp(path, root, length) || (path[length] && path[length] != '/')) return NULL;
    return path + length + !!path[length];
}

static int seen(const char *call, const char *path, const char *to, long safe, int takes_room) {
    const char *here = below(path), *there = below(to);
    if (trace < 0 || !here || !there) return 0;
    pthread_mutex_lock(&turn);
    int full = 0;
    count++;
    if (fatal && count >= fatal && kind == DIE) _exit(DIED);
    if (fatal && count >= fatal && kind == FULL) full = takes_room;
    if (!full) {
        char line[2 * PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%ld\n", call, here, there, safe);
        syscall(SYS_write, trace, line, length);
    }
    pthread_mutex_unlock(&turn);
    if (full) errno = ENOSPC;
    return full;
}

static const char *of(int file, char *path) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return path;
}

static const char *at(int folder, const char *name, char *path) {
    char start[PATH_MAX] = "";
    if (name[0] != '/') {
        if (folder != AT_FDCWD) of(folder, start);
        else if (!getcwd(start, sizeof start)) start[0] = 0;
        strncat(start, "/", sizeof start - strlen(start) - 1);
    }
    snprintf(path, PATH_MAX, "%s%s", start, name);
    return path;
}

#define WRITES(type, name, parameters, arguments) \
    type name parameters { \
        char path[PATH_MAX]; \
        if (trace >= 0 && seen("write", of(file, path), "", 0, 1)) return -1; \
        return REAL(name) arguments; \
    }
WRITES(ssize_t, write, (int file, const void *from, size_t size), (file, from, size))
WRITES(ssize_t, pwrite, (int file, const void *from, size_t size, off_t start), (file, from, size, start))
WRITES(ssize_t, pwrite64, (int file, const void *from, size_t size, off64_t start), (file, from, size, start))
WRITES(ssize_t, writev, (int file, const struct iovec *from, int parts), (file, from, parts))
WRITES(ssize_t, pwritev, (int file, const struct iovec *from, int parts, off_t start), (file, from, parts, start))
WRITES(ssize_t, pwritev64, (int file, const struct iovec *from, int parts, off64_t start), (file, from, parts, start))
WRITES(ssize_t, sendfile, (int file, int from, off_t *start, size_t size), (file, from, start, size))
WRITES(ssize_t, sendfile64, (int file, int from, off64_t *start, size_t size), (file, from, start, size))
WRITES(int, ftruncate, (int file, off_t size), (file, size))
WRITES(int, ftruncate64, (int file, off64_t size), (file, size))
WRITES(int, fallocate, (int file, int mode, off_t start, off_t size), (file, mode, start, size))
WRITES(int, fallocate64, (int file, int mode, off64_t start, off64_t size), (file, mode, start, size))

#define SYNCS(name) \
    int name(int file) { \
        char path[PATH_MAX]; \
        struct stat now = {0}; \
        if (trace >= 0 && !fstat(file, &now) && seen("sync", of(file, path), "", now.st_size, 1)) return -1; \
        return REAL(name)(file); \
    }
SYNCS(fsync)
SYNCS(fdatasync)

#define OPENS(name, folder, parameters, arguments) \
    int name parameters { \
        char path[PATH_MAX]; \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (trace >= 0 && flags & (O_CREAT | O_TRUNC) && \
            seen(flags & O_TRUNC ? "empty" : "create", at(folder, file, path), "", 0, 1)) return -1; \
        return REAL(name) arguments; \
    }
OPENS(open, AT_FDCWD, (const char *file, int flags, ...), (file, flags, mode))
OPENS(open64, AT_FDCWD, (const char *file, int flags, ...), (file, flags, mode))
OPENS(openat, folder, (int folder, const char *file, int flags, ...), (folder, file, flags, mode))
OPENS(openat64, folder, (int folder, const char *file, int flags, ...), (folder, file, flags, mode))

#define NAMES(call, name, folder, takes_room, parameters, arguments) \
    int name parameters { \
        char path[PATH_MAX]; \
        if (trace >= 0 && seen(call, at(folder, file, path), "", 0, takes_room)) return -1; \
        return REAL(name) arguments; \
    }
NAMES("folder", mkdir, AT_FDCWD, 1, (const char *file, mode_t mode), (file, mode))
NAMES("folder", mkdirat, folder, 1, (int folder, const char *file, mode_t mode), (folder, file, mode))
NAMES("remove", unlink, AT_FDCWD, 0, (const char *file), (file))
NAMES("remove", rmdir, AT_FDCWD, 0, (const char *file), (file))
NAMES("remove", unlinkat, folder, 0, (int folder, const char *file, int flags), (folder, file, flags))

#define MOVES(call, name, here, there, parameters, arguments) \
    int name parameters { \
        char path[PATH_MAX], other[PATH_MAX]; \
        if (trace >= 0 && seen(call, at(here, file, path), at(there, to, other), 0, 1)) return -1; \
        return REAL(name) arguments; \
    }
MOVES("rename", rename, AT_FDCWD, AT_FDCWD, (const char *file, const char *to), (file, to))
MOVES("rename", renameat, here, there, (int here, const char *file, int there, const char *to), (here, file, there, to))
MOVES("link", link, AT_FDCWD, AT_FDCWD, (const char *file, const char *to), (file, to))
MOVES("link", linkat, here, there, (int here, const char *file, int there, const char *to, int flags),
      (here, file, there, to, flags))

static time_t earlier(time_t now) { return now - back * ++looks; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, clock, now);
    if (back && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec = earlier(now->tv_sec);
    return status;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    now->tv_sec = fine.tv_sec, now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    return now ? *now = fine.tv_sec : fine.tv_sec;
}
