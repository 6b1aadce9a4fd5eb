/* Put between a process and the C library (LD_PRELOAD): counts the calls that change files below one folder, or answer
 * a client, and at a chosen one kills the process or lets the call fail. What to do stands in a small shared file, so
 * that a test can arm a process that already runs, and several processes count together.
 *
 *   FAULTS  the control file (struct control, below)     FAULTS_UNDER  the folder
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NONE, KILL, TEAR, FAIL, SHORT };                 /* what happens */
enum { WRITE = 1, SYNC = 2, NAME = 4, SEND = 8 };       /* to which calls */

struct control {
    int64_t count;          /* calls seen */
    int64_t from, until;    /* the fault is in from <= number < until; numbers begin at 1 */
    int64_t kind, error;    /* of the enum above; errno for FAIL */
    int64_t classes;        /* bits of the calls that are counted */
    int64_t hits;           /* faults made */
    char last[64];          /* the name of the last call that met one */
};

static struct control *control;
static char under[4096];
static size_t under_length;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS"), *folder = getenv("FAULTS_UNDER");
    if (!path || !folder || !realpath(folder, under)) return;
    under_length = strlen(under);
    int handle = open(path, O_RDWR);
    if (handle < 0) return;
    void *shared = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (shared != MAP_FAILED) control = shared;
}

static int is_below(const char *path) {
    return !strncmp(path, under, under_length) && (path[under_length] == '/' || !path[under_length]);
}

/* 0: not ours; else the class of a write to this descriptor */
static int class_of(int handle) {
    char link[64], path[4096];
    if (!control || !control->classes) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    if (!strncmp(path, "socket:", 7)) return SEND;
    return is_below(path) ? WRITE : 0;
}

static int named(int folder, const char *path) {
    char whole[8192], link[64];
    if (!control || !control->classes || !path) return 0;
    if (path[0] == '/') return is_below(path) ? NAME : 0;
    if (folder == AT_FDCWD) {
        if (!getcwd(whole, 4096)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, whole, 4095);
        if (length <= 0) return 0;
        whole[length] = 0;
    }
    return is_below(whole) ? NAME : 0;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Counts a call of this class; what is to happen to it. KILL does not return. */
static int meet(int class, const char *what) {
    if (!class || !(control->classes & class)) return NONE;
    int64_t number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    if (number < control->from || number >= control->until || control->kind == NONE) return NONE;
    __atomic_add_fetch(&control->hits, 1, __ATOMIC_SEQ_CST);
    strncpy(control->last, what, sizeof control->last - 1);
    if (control->kind == KILL) die();
    return (int)control->kind;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define REFUSE() do { errno = (int)control->error; return -1; } while (0)

/* Calls that move bytes: torn ones move half of them. */
#define MOVES(name, signature, class, whole, half) \
    ssize_t name signature { \
        REAL(name); \
        switch (meet(class, #name)) { \
        case FAIL: REFUSE(); \
        case TEAR: if (length > 1) (void)!(half); die(); break; \
        case SHORT: if (length > 1) return half; break; \
        } \
        return whole; \
    }
MOVES(write, (int handle, const void *from, size_t length), class_of(handle),
      real(handle, from, length), real(handle, from, length / 2))
MOVES(pwrite, (int handle, const void *from, size_t length, off_t at), class_of(handle),
      real(handle, from, length, at), real(handle, from, length / 2, at))
MOVES(pwrite64, (int handle, const void *from, size_t length, off64_t at), class_of(handle),
      real(handle, from, length, at), real(handle, from, length / 2, at))
MOVES(send, (int handle, const void *from, size_t length, int flags), class_of(handle),
      real(handle, from, length, flags), real(handle, from, length / 2, flags))
MOVES(sendto, (int handle, const void *from, size_t length, int flags, const struct sockaddr *to, socklen_t size),
      class_of(handle), real(handle, from, length, flags, to, size), real(handle, from, length / 2, flags, to, size))
MOVES(writev, (int handle, const struct iovec *from, int length), class_of(handle),
      real(handle, from, length), real(handle, from, length / 2))

/* Calls that are done or not done: a torn one is done, and the caller never hears of it. */
#define DOES(name, signature, class, whole) \
    int name signature { \
        REAL(name); \
        switch (meet(class, #name)) { \
        case FAIL: REFUSE(); \
        case TEAR: (void)(whole); die(); break; \
        } \
        return whole; \
    }
#define OF_FILE(handle) (class_of(handle) == WRITE)
DOES(fsync, (int handle), OF_FILE(handle) ? SYNC : 0, real(handle))
DOES(fdatasync, (int handle), OF_FILE(handle) ? SYNC : 0, real(handle))
DOES(ftruncate, (int handle, off_t length), OF_FILE(handle) ? NAME : 0, real(handle, length))
DOES(ftruncate64, (int handle, off64_t length), OF_FILE(handle) ? NAME : 0, real(handle, length))
DOES(rename, (const char *from, const char *to), named(AT_FDCWD, to), real(from, to))
DOES(renameat, (int a, const char *from, int b, const char *to), named(b, to), real(a, from, b, to))
DOES(renameat2, (int a, const char *from, int b, const char *to, unsigned flags), named(b, to),
     real(a, from, b, to, flags))
DOES(link, (const char *from, const char *to), named(AT_FDCWD, to), real(from, to))
DOES(linkat, (int a, const char *from, int b, const char *to, int flags), named(b, to), real(a, from, b, to, flags))
DOES(unlink, (const char *path), named(AT_FDCWD, path), real(path))
DOES(unlinkat, (int folder, const char *path, int flags), named(folder, path), real(folder, path, flags))
DOES(mkdir, (const char *path, mode_t mode), named(AT_FDCWD, path), real(path, mode))
DOES(mkdirat, (int folder, const char *path, mode_t mode), named(folder, path), real(folder, path, mode))

/* Opening counts where it may make a file. */
#define MODE(flags, mode) \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more)
#define OPENS(folder, name, whole) \
    switch (meet(flags & O_CREAT ? named(folder, path) : 0, name)) { \
    case FAIL: REFUSE(); \
    case TEAR: (void)(whole); die(); break; \
    } \
    return whole
int open(const char *path, int flags, ...) {
    REAL(open);
    MODE(flags, mode);
    OPENS(AT_FDCWD, "open", real(path, flags, mode));
}
int open64(const char *path, int flags, ...) {
    REAL(open64);
    MODE(flags, mode);
    OPENS(AT_FDCWD, "open64", real(path, flags, mode));
}
int openat(int folder, const char *path, int flags, ...) {
    REAL(openat);
    MODE(flags, mode);
    OPENS(folder, "openat", real(folder, path, flags, mode));
}
int openat64(int folder, const char *path, int flags, ...) {
    REAL(openat64);
    MODE(flags, mode);
    OPENS(folder, "openat64", real(folder, path, flags, mode));
}

ssize_t sendmsg(int handle, const struct msghdr *from, int flags) {
    REAL(sendmsg);
    switch (meet(class_of(handle), "sendmsg")) {
    case FAIL: REFUSE();
    case TEAR: (void)!real(handle, from, flags); die(); break;
    }
    return real(handle, from, flags);
}
