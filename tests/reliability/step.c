/* Run a command and disturb it at one of its system calls, or only record them.
 *
 *   step --under DIR --log FILE [--call NAME] [--at N] [--do kill|short|ERRNO] [--then kill]
 *       -- COMMAND...
 *
 * Counted are the calls of all threads together, from the first that concerns DIR on. `--call any`
 * counts every call, whatever it concerns; `--call NAME` those of one name that concern DIR, where an
 * `openat` or `openat2` that may make a file is called `create`, one that opens a file to write it
 * `open_to_write`, an `fcntl` that makes a descriptor `duplicate`, and a `futex` that waits `futex_wait`. What
 * goes through a socket is `send` or `receive`; that, and what names no file, concerns DIR once DIR was named.
 * The N-th of them is disturbed: the process is killed before it is done, or it fails
 * with ERRNO (a number) and is not done (but `close` is), or it is done for half as many bytes. With
 * `--then kill` the process is killed when the call has failed, before it can do anything about it.
 *
 * Each call that concerns DIR, and the disturbed one, is a line of FILE:
 *
 *   NUMBER NAME INODE RESULT PATH
 *
 * where INODE is that of the file that is written, synced, linked or renamed, RESULT what the
 * process was told, or `-` if it was not told. The last line is `end HIT COUNTED STATUS`: whether the call
 * came to be disturbed, how many were counted, and the exit code, or 128 and the signal.
 *
 * strace can inject faults too, but counts for each thread by itself, and cannot shorten a write.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __x86_64__
#error "step knows the registers of x86-64 only"
#endif

/* Where a call names its file: an open descriptor, a path, or a name below a directory's descriptor; or
 * that it names none. */
enum { BY_FD, BY_PATH, BY_NAME, BY_NEW_NAME, BY_NOTHING };

static const struct {
    long number;
    const char *name;
    int how;
} calls[] = {
    {SYS_read, "read", BY_FD},
    {SYS_pread64, "pread64", BY_FD},
    {SYS_write, "write", BY_FD},
    {SYS_pwrite64, "pwrite64", BY_FD},
    {SYS_writev, "writev", BY_FD},
    {SYS_preadv, "preadv", BY_FD},
    {SYS_pwritev, "pwritev", BY_FD},
    {SYS_recvfrom, "recvfrom", BY_FD},
    {SYS_sendto, "sendto", BY_FD},
    {SYS_connect, "connect", BY_FD},
    {SYS_copy_file_range, "copy_file_range", BY_FD},
    {SYS_fsync, "fsync", BY_FD},
    {SYS_fdatasync, "fdatasync", BY_FD},
    {SYS_syncfs, "syncfs", BY_FD},
    {SYS_sync_file_range, "sync_file_range", BY_FD},
    {SYS_ftruncate, "ftruncate", BY_FD},
    {SYS_fallocate, "fallocate", BY_FD},
    {SYS_fchmod, "fchmod", BY_FD},
    {SYS_flock, "flock", BY_FD},
    {SYS_lseek, "lseek", BY_FD},
    {SYS_fstat, "fstat", BY_FD},
    {SYS_fstatfs, "fstatfs", BY_FD},
    {SYS_getdents64, "getdents64", BY_FD},
    {SYS_close, "close", BY_FD},
    {SYS_fcntl, "fcntl", BY_FD},
    {SYS_openat, "openat", BY_NAME},
    {SYS_openat2, "openat2", BY_NAME},
    {SYS_newfstatat, "newfstatat", BY_NAME},
    {SYS_statx, "statx", BY_NAME},
    {SYS_mkdirat, "mkdirat", BY_NAME},
    {SYS_unlinkat, "unlinkat", BY_NAME},
    {SYS_fchmodat, "fchmodat", BY_NAME},
    {SYS_utimensat, "utimensat", BY_NAME},
    {SYS_linkat, "linkat", BY_NEW_NAME},
    {SYS_renameat, "renameat", BY_NEW_NAME},
    {SYS_renameat2, "renameat2", BY_NEW_NAME},
    {SYS_statfs, "statfs", BY_PATH},
    {SYS_chmod, "chmod", BY_PATH},
    {SYS_unlink, "unlink", BY_PATH},
    {SYS_socket, "socket", BY_NOTHING},
    {SYS_socketpair, "socketpair", BY_NOTHING},
    {SYS_epoll_create1, "epoll_create1", BY_NOTHING},
    {SYS_epoll_wait, "epoll_wait", BY_NOTHING},
    {SYS_eventfd2, "eventfd2", BY_NOTHING},
    {SYS_clock_nanosleep, "clock_nanosleep", BY_NOTHING},
    {SYS_futex, "futex", BY_NOTHING},
};

static const char *under, *wanted;
static long at, counted;
static enum { NOTHING, KILL, SHORT, FAIL } action;
static int failure, hit, begun, then_kill;
static FILE *record;
static pid_t process;

/* One thread between the entry of a call and its exit. */
static struct thread {
    pid_t id;
    int disturbed;
    int logged;
    /* To so many bytes the call was cut short; 0 for none. */
    long cut;
    char line[2 * 4096 + 200];
    char path[4096];
} threads[256];

static void fail(const char *what) {
    fprintf(stderr, "step: %s: %s\n", what, strerror(errno));
    exit(99);
}

/* A thread's place; of one that is new, a free one. */
static struct thread *thread_of(pid_t id) {
    struct thread *place = NULL;
    for (size_t n = 0; n < sizeof threads / sizeof *threads; n++) {
        if (threads[n].id == id) return &threads[n];
        if (threads[n].id == 0 && !place) place = &threads[n];
    }
    if (!place) {
        errno = EAGAIN;
        fail("too many threads");
    }
    place->id = id;
    place->disturbed = place->logged = 0;
    place->cut = 0;
    return place;
}

static void read_text(pid_t id, unsigned long address, char *text, size_t size) {
    char file[64];
    snprintf(file, sizeof file, "/proc/%d/mem", id);
    text[0] = 0;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    /* Not beyond the end of a page, which may be that of the memory. */
    size_t room = 4096 - address % 4096;
    ssize_t got = pread(fd, text, room < size ? room : size - 1, (off_t)address);
    if (got >= 0 && (size_t)got < size) {
        text[got] = 0;
        if (memchr(text, 0, (size_t)got) == NULL && (size_t)got == room) {
            ssize_t more = pread(fd, text + got, size - 1 - (size_t)got, (off_t)(address + room));
            text[got + (more > 0 ? more : 0)] = 0;
        }
    }
    close(fd);
}

/* The flags of `openat2`, which stand in memory; none if they cannot be read. */
static __uint64_t flags_of_how(pid_t id, unsigned long address) {
    char file[64];
    __uint64_t flags;
    snprintf(file, sizeof file, "/proc/%d/mem", id);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    /* They come first in `struct open_how`. */
    if (pread(fd, &flags, sizeof flags, (off_t)address) != sizeof flags) flags = 0;
    close(fd);
    return flags;
}

/* The path of a descriptor, and of a name below it, which may itself begin with a descriptor. */
static void resolve(pid_t id, int fd, const char *name, char *path, size_t size) {
    const char *self = "/proc/self/fd/";
    char link[64];
    if (name && strncmp(name, self, strlen(self)) == 0) {
        char *rest;
        fd = (int)strtol(name + strlen(self), &rest, 10);
        name = rest[0] == '/' ? rest + 1 : rest;
    } else if (name && name[0] == '/') {
        snprintf(path, size, "%s", name);
        return;
    }
    if (fd == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/%d/cwd", id);
    else
        snprintf(link, sizeof link, "/proc/%d/fd/%d", id, fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) length = 0;
    path[length] = 0;
    if (name && name[0]) {
        strncat(path, "/", size - strlen(path) - 1);
        strncat(path, name, size - strlen(path) - 1);
    }
}

static unsigned long inode_of(pid_t id, int fd, const char *name) {
    char path[4200];
    struct stat found;
    const char *self = "/proc/self/fd/";
    if (name && strncmp(name, self, strlen(self)) == 0)
        snprintf(path, sizeof path, "/proc/%d/fd/%s", id, name + strlen(self));
    else if (name)
        snprintf(path, sizeof path, "/proc/%d/fd/%d/%s", id, fd, name);
    else
        snprintf(path, sizeof path, "/proc/%d/fd/%d", id, fd);
    return stat(path, &found) == 0 ? found.st_ino : 0;
}

static void poke(pid_t id, size_t offset, long value) {
    if (ptrace(PTRACE_POKEUSER, id, offset, value) != 0) fail("ptrace");
}

/* Has half of the first piece read or written by the call for one, and nothing else. */
static int shorten_pieces(struct thread *it, const __uint64_t *args, long number) {
    char file[64];
    struct iovec piece;
    snprintf(file, sizeof file, "/proc/%d/mem", it->id);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail(file);
    ssize_t got = pread(fd, &piece, sizeof piece, (off_t)args[1]);
    close(fd);
    if (got != sizeof piece || piece.iov_len < 2) return 0;
    /* The place in the file, where one is given, is the fourth argument of both calls. */
    poke(it->id, offsetof(struct user_regs_struct, orig_rax), number);
    poke(it->id, offsetof(struct user_regs_struct, rsi), (long)piece.iov_base);
    it->cut = (long)(piece.iov_len / 2);
    poke(it->id, offsetof(struct user_regs_struct, rdx), it->cut);
    return 1;
}

/* What an opening is called, by its flags: one that may make a file needs space for it, and one that
 * is to write to it is refused where nothing may be written. */
static const char *title_of_open(pid_t id, long number, const __uint64_t *args, const char *name) {
    __uint64_t flags = args[2];
    if (number == SYS_openat2) flags = flags_of_how(id, args[2]);
    if (flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) return "create";
    return (flags & O_ACCMODE) == O_RDONLY || (flags & O_PATH) ? name : "open_to_write";
}

/* What a call that names no file is called, or one on a socket; `title` if it is no special one. */
static const char *title_of_other(long number, const __uint64_t *args, int is_socket, const char *title) {
    int futex = (int)args[1] & FUTEX_CMD_MASK;
    switch (number) {
    case SYS_fcntl:
        return args[1] == F_DUPFD || args[1] == F_DUPFD_CLOEXEC ? "duplicate" : title;
    /* One that wakes others is never interrupted. */
    case SYS_futex:
        return futex == FUTEX_WAIT || futex == FUTEX_WAIT_BITSET ? "futex_wait" : title;
    case SYS_read:
    case SYS_recvfrom:
        return is_socket ? "receive" : title;
    case SYS_write:
    case SYS_writev:
    case SYS_sendto:
        return is_socket ? "send" : title;
    default:
        return title;
    }
}

static void disturb(struct thread *it, long number, const struct __ptrace_syscall_info *call) {
    hit = 1;
    switch (action) {
    case KILL:
        if (kill(process, SIGKILL) != 0) fail("kill");
        break;
    case SHORT:
        if (number == SYS_pwritev)
            hit = shorten_pieces(it, call->entry.args, SYS_pwrite64);
        else if (number == SYS_preadv)
            hit = shorten_pieces(it, call->entry.args, SYS_pread64);
        else if (number == SYS_writev)
            hit = shorten_pieces(it, call->entry.args, SYS_write);
        else if (call->entry.args[2] > 1) {
            it->cut = (long)(call->entry.args[2] / 2);
            poke(it->id, offsetof(struct user_regs_struct, rdx), it->cut);
        } else {
            hit = 0;
        }
        break;
    case FAIL:
        if (number != SYS_close) poke(it->id, offsetof(struct user_regs_struct, orig_rax), -1);
        it->disturbed = 1;
        break;
    case NOTHING:
        hit = 0;
        break;
    }
}

static void enter(struct thread *it, const struct __ptrace_syscall_info *call) {
    const __uint64_t *args = call->entry.args;
    long number = (long)call->entry.nr;
    char name[4096] = "";
    const char *title = NULL;
    unsigned long inode = 0;
    int is_other = 0;
    it->disturbed = it->logged = 0;
    it->cut = 0;
    it->path[0] = 0;
    for (size_t n = 0; n < sizeof calls / sizeof *calls; n++) {
        if (calls[n].number != number) continue;
        title = calls[n].name;
        int fd = (int)args[0];
        if (calls[n].how == BY_NOTHING) {
            is_other = 1;
        } else if (calls[n].how == BY_PATH) {
            read_text(it->id, args[0], name, sizeof name);
            resolve(it->id, AT_FDCWD, name, it->path, sizeof it->path);
        } else if (calls[n].how == BY_FD) {
            resolve(it->id, fd, NULL, it->path, sizeof it->path);
            inode = inode_of(it->id, fd, NULL);
        } else if (calls[n].how == BY_NAME) {
            if (args[1]) read_text(it->id, args[1], name, sizeof name);
            resolve(it->id, fd, name, it->path, sizeof it->path);
        } else {
            read_text(it->id, args[1], name, sizeof name);
            inode = inode_of(it->id, fd, name);
            read_text(it->id, args[3], name, sizeof name);
            resolve(it->id, (int)args[2], name, it->path, sizeof it->path);
        }
        break;
    }
    if (number == SYS_openat || number == SYS_openat2)
        title = title_of_open(it->id, number, args, title);
    int is_socket = strncmp(it->path, "socket:", strlen("socket:")) == 0;
    if (title) title = title_of_other(number, args, is_socket, title);
    int concerns = title && strncmp(it->path, under, strlen(under)) == 0;
    concerns = concerns || (begun && (is_other || is_socket));
    begun = begun || concerns;
    if (!begun) return;
    int counts = strcmp(wanted, "any") == 0 || (concerns && strcmp(wanted, title) == 0);
    counted += counts;
    int here = counts && counted == at && !hit;
    if (here) disturb(it, number, call);
    if (!concerns && !here) return;
    char other[32];
    snprintf(other, sizeof other, "call%ld", number);
    snprintf(it->line, sizeof it->line, "%ld %s %lu", counted, title ? title : other, inode);
    it->logged = 1;
    if (here && action == KILL) fprintf(record, "%s - %s\n", it->line, it->path);
}

static void leave(struct thread *it, const struct __ptrace_syscall_info *call) {
    long result = (long)call->exit.rval;
    if (it->disturbed) {
        result = -failure;
        poke(it->id, offsetof(struct user_regs_struct, rax), result);
        if (then_kill && kill(process, SIGKILL) != 0) fail("kill");
    }
    /* Less was there to be had: nobody was told of a part only. */
    if (it->cut && result != it->cut) hit = 0;
    if (it->logged) fprintf(record, "%s %ld %s\n", it->line, result, it->path);
    it->disturbed = it->logged = 0;
}

static void stopped(pid_t id, int status) {
    int signal = WSTOPSIG(status), event = status >> 16;
    long deliver = 0;
    if (signal == (SIGTRAP | 0x80)) {
        struct __ptrace_syscall_info call;
        struct thread *it = thread_of(id);
        /* One that was killed meanwhile is gone. */
        if (ptrace(PTRACE_GET_SYSCALL_INFO, id, sizeof call, &call) < 0) return;
        if (call.op == PTRACE_SYSCALL_INFO_ENTRY) enter(it, &call);
        if (call.op == PTRACE_SYSCALL_INFO_EXIT) leave(it, &call);
    } else if (event == 0 && signal != SIGSTOP) {
        deliver = signal;
    }
    ptrace(PTRACE_SYSCALL, id, 0, deliver);
}

static int run(void) {
    int status;
    if (waitpid(process, &status, 0) != process || !WIFSTOPPED(status)) fail("the command");
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                   PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SETOPTIONS, process, 0, options) != 0) fail("ptrace");
    ptrace(PTRACE_SYSCALL, process, 0, 0);
    for (;;) {
        pid_t id = waitpid(-1, &status, __WALL);
        if (id < 0) fail("wait");
        if (WIFSTOPPED(status)) {
            stopped(id, status);
            continue;
        }
        if (id == process) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        thread_of(id)->id = 0;
    }
}

int main(int argc, char **argv) {
    const char *log = NULL;
    int n = 1;
    wanted = "any";
    for (; n + 1 < argc && strcmp(argv[n], "--") != 0; n += 2) {
        const char *value = argv[n + 1];
        if (strcmp(argv[n], "--under") == 0) under = value;
        else if (strcmp(argv[n], "--log") == 0) log = value;
        else if (strcmp(argv[n], "--call") == 0) wanted = value;
        else if (strcmp(argv[n], "--at") == 0) at = atol(value);
        else if (strcmp(argv[n], "--then") == 0 && strcmp(value, "kill") == 0) then_kill = 1;
        else if (strcmp(argv[n], "--do") == 0 && strcmp(value, "kill") == 0) action = KILL;
        else if (strcmp(argv[n], "--do") == 0 && strcmp(value, "short") == 0) action = SHORT;
        else if (strcmp(argv[n], "--do") == 0 && (failure = atoi(value)) > 0) action = FAIL;
        else break;
    }
    if (!under || !log || n + 1 >= argc || strcmp(argv[n], "--") != 0) {
        fprintf(stderr, "usage: see the head of step.c\n");
        return 99;
    }
    record = fopen(log, "we");
    if (!record) fail(log);
    process = fork();
    if (process < 0) fail("fork");
    if (process == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execvp(argv[n + 1], argv + n + 1);
        fprintf(stderr, "step: %s: %s\n", argv[n + 1], strerror(errno));
        _exit(99);
    }
    int status = run();
    fprintf(record, "end %d %ld %d\n", hit, counted, status);
    if (fclose(record) != 0) fail(log);
    return status;
}
