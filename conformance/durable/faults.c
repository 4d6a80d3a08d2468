// Faults below a program: writes, syncs, renames and the like in one folder fail, tear or kill the process when the test
// says so, and a log of all of them tells what a power failure would have left.
//
//   gcc -shared -fPIC -O2 -Wall -Wextra -o faults.so faults.c
//   LD_PRELOAD=faults.so FAULT_DIR=/folder FAULT_CTL=/control [FAULT_LOG=/log] [FAULT_SKIP_SYNC=1] program
//
// FAULT_CTL is a `struct control` that the test writes to and reads while the program runs. FAULT_LOG takes one `struct
// record` for every change that was made in the folder, and for every sync; `shim.py` reads it. With FAULT_SKIP_SYNC nothing
// is really synced: what the machine's own disk does is of no interest to a test that looks at the log.
//
// Renames are caught in the kernel's gate (seccomp) rather than in the C library: some programs ask the kernel themselves.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MACHINE AUDIT_ARCH_AARCH64
#else
#error "faults.c knows x86-64 and AArch64"
#endif

enum kind { WRITE, SYNC, RENAME, OPEN, UNLINK, TRUNCATE, MKDIR, DIRSYNC, LINK, KINDS = 16 };
// What the log has besides: a sync that failed, of which the kernel remembers that it has nothing more to write.
enum { SYNC_FAILED = 32, DIRSYNC_FAILED = 33 };
// TEAR makes the first half of a write; SHORT is that without an error.
enum action { FAIL, TEAR, DIE, TEAR_AND_DIE, DIE_AFTER, SHORT };

// All a test and the program share. A call fails if its kind is in `kinds` (a set of bits), its path has `match` in it and
// it is the `from`-th since `calls` was 0, or any `every`-th after that, until `limit` have.
struct control {
  _Atomic uint64_t kinds, error, from, every, limit, action, calls, fired;
  _Atomic uint64_t counts[KINDS];
  char match[128];
};

// Followed by `first` bytes of path and `second` bytes: the data of a write, the other path of a rename.
struct record {
  uint32_t mark, kind;
  uint64_t inode;
  int64_t offset;
  uint64_t before;  // of a sync: how long the log was when it began
  uint32_t first, second;
};

#define MARK 0x74667366u
// The last argument of a rename that is the shim's own.
#define PASS 0x7469646567617465ul

static struct control *control;
static char folder[PATH_MAX];
static size_t folder_length;
static int log_fd = -1, skip_sync;

static __attribute__((noreturn)) void give_up(const char *why) {
  fprintf(stderr, "faults: %s: %s\n", why, strerror(errno));
  _exit(99);
}

static void die(void) {
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;) pause();
}

static int is_inside(const char *path) {
  return control && strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || !path[folder_length]);
}

// The path of an open file if it is in the folder.
static int inside(int fd, char *path) {
  char link[32];
  if (!control || fd < 0 || fd == log_fd) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, PATH_MAX - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return is_inside(path);
}

// The absolute path that is meant, without "." and "..", if it is in the folder.
static int inside_at(int dir, const char *name, char *path) {
  char whole[2 * PATH_MAX];
  if (!control || !name) return 0;
  if (name[0] == '/') {
    snprintf(whole, sizeof whole, "%s", name);
  } else {
    char base[PATH_MAX], link[32] = "/proc/self/cwd";
    if (dir != AT_FDCWD) snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t n = readlink(link, base, PATH_MAX - 1);
    if (n <= 0) return 0;
    base[n] = 0;
    snprintf(whole, sizeof whole, "%s/%s", base, name);
  }
  size_t end = 0;
  char *rest = NULL;
  for (char *part = strtok_r(whole, "/", &rest); part; part = strtok_r(NULL, "/", &rest)) {
    size_t length = strlen(part);
    if (strcmp(part, ".") == 0) continue;
    if (strcmp(part, "..") == 0) {
      while (end && path[--end] != '/') {}
      continue;
    }
    if (end + length + 2 > PATH_MAX) return 0;
    path[end++] = '/';
    memcpy(path + end, part, length);
    end += length;
  }
  path[end] = 0;
  return is_inside(path);
}

static uint64_t inode_of(int fd) {
  struct stat s;
  return fstat(fd, &s) == 0 ? s.st_ino : 0;
}

static uint64_t log_length(void) {
  struct stat s;
  return log_fd >= 0 && fstat(log_fd, &s) == 0 ? (uint64_t)s.st_size : 0;
}

static void note(uint32_t kind, uint64_t inode, int64_t offset, uint64_t before, const char *path, const void *second,
                 size_t length) {
  if (log_fd < 0) return;
  int saved = errno;
  size_t first = strlen(path);
  struct record r = {MARK, kind, inode, offset, before, (uint32_t)first, (uint32_t)length};
  struct iovec parts[3] = {{&r, sizeof r}, {(void *)path, first}, {(void *)second, length}};
  if (syscall(SYS_writev, log_fd, parts, 3) != (long)(sizeof r + first + length)) give_up("cannot write FAULT_LOG");
  errno = saved;
}

// What shall happen to this call: -1 nothing.
static int verdict(enum kind kind, const char *path) {
  control->counts[kind]++;
  if (!(control->kinds >> kind & 1)) return -1;
  if (control->match[0] && !strstr(path, control->match)) return -1;
  uint64_t call = ++control->calls, from = control->from, every = control->every;
  if (call < from || (every ? (call - from) % every != 0 : call != from)) return -1;
  if (++control->fired > control->limit && control->limit) return -1;
  if (control->action == DIE || (control->action == TEAR_AND_DIE && kind != WRITE)) die();
  return (int)control->action;
}

// For all that can only be done or not: 1 if it fails with errno.
static int fails(int action) {
  if (action == FAIL || action == TEAR) errno = (int)control->error;
  return action == FAIL || action == TEAR;
}

static void after(int action) {
  if (action == DIE_AFTER) die();
}

static ssize_t write_at(int fd, const char *path, const void *data, size_t length, const off_t *at) {
  int action = verdict(WRITE, path);
  if (action == FAIL) {
    errno = (int)control->error;
    return -1;
  }
  int is_torn = length > 1 && (action == TEAR || action == TEAR_AND_DIE || action == SHORT);
  if (is_torn) length /= 2;
  ssize_t n = at ? syscall(SYS_pwrite64, fd, data, length, *at) : syscall(SYS_write, fd, data, length);
  if (n > 0) note(WRITE, inode_of(fd), at ? *at : lseek(fd, 0, SEEK_CUR) - n, 0, path, data, (size_t)n);
  if (action == TEAR_AND_DIE) die();
  after(action);
  if (action == TEAR) {
    errno = (int)control->error;
    return -1;
  }
  return n;
}

ssize_t write(int fd, const void *data, size_t length) {
  char path[PATH_MAX];
  if (!inside(fd, path)) return syscall(SYS_write, fd, data, length);
  return write_at(fd, path, data, length, NULL);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off_t at) {
  char path[PATH_MAX];
  if (!inside(fd, path)) return syscall(SYS_pwrite64, fd, data, length, at);
  return write_at(fd, path, data, length, &at);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return pwrite64(fd, data, length, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
  char path[PATH_MAX];
  if (!inside(fd, path)) return syscall(SYS_writev, fd, parts, count);
  size_t length = 0, end = 0;
  for (int i = 0; i < count; i++) length += parts[i].iov_len;
  char *whole = malloc(length ? length : 1);
  if (!whole) give_up("writev");
  for (int i = 0; i < count; i++) {
    memcpy(whole + end, parts[i].iov_base, parts[i].iov_len);
    end += parts[i].iov_len;
  }
  ssize_t n = write_at(fd, path, whole, length, NULL);
  int saved = errno;
  free(whole);
  errno = saved;
  return n;
}

// Programs have another way when the kernel cannot copy by itself.
ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t length, unsigned flags) {
  char path[PATH_MAX];
  if (!inside(out, path)) return syscall(SYS_copy_file_range, in, in_at, out, out_at, length, flags);
  errno = ENOSYS;
  return -1;
}

ssize_t sendfile64(int out, int in, off_t *at, size_t length) {
  char path[PATH_MAX];
  if (!inside(out, path)) return syscall(SYS_sendfile, out, in, at, length);
  errno = ENOSYS;
  return -1;
}

ssize_t sendfile(int out, int in, off_t *at, size_t length) { return sendfile64(out, in, at, length); }

static int sync_with(int fd, long call) {
  char path[PATH_MAX];
  struct stat s;
  if (!inside(fd, path) || fstat(fd, &s) != 0) return (int)syscall(call, fd);
  enum kind kind = S_ISDIR(s.st_mode) ? DIRSYNC : SYNC;
  uint64_t before = log_length();
  int action = verdict(kind, path);
  if (fails(action)) {
    note(kind == SYNC ? SYNC_FAILED : DIRSYNC_FAILED, s.st_ino, 0, before, path, NULL, 0);
    return -1;
  }
  int result = skip_sync ? 0 : (int)syscall(call, fd);
  if (result == 0) note(kind, s.st_ino, 0, before, path, NULL, 0);
  after(action);
  return result;
}

int fsync(int fd) { return sync_with(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_with(fd, SYS_fdatasync); }

static int open_with(int dir, const char *name, int flags, mode_t mode) {
  char path[PATH_MAX];
  int is_changing = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
  if (!is_changing || !inside_at(dir, name, path)) return (int)syscall(SYS_openat, dir, name, flags, mode);
  if ((flags & O_TMPFILE) == O_TMPFILE) {
    errno = EOPNOTSUPP;
    return -1;
  }
  int action = verdict(OPEN, path);
  if (fails(action)) return -1;
  int fd = (int)syscall(SYS_openat, dir, name, flags, mode);
  if (fd >= 0) note(OPEN, inode_of(fd), flags & O_TRUNC ? 0 : -1, 0, path, NULL, 0);
  after(action);
  return fd;
}

#define MODE(flags, last) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list more; \
    va_start(more, last); \
    mode = va_arg(more, mode_t); \
    va_end(more); \
  }

int open(const char *name, int flags, ...) {
  MODE(flags, flags)
  return open_with(AT_FDCWD, name, flags, mode);
}
int open64(const char *name, int flags, ...) {
  MODE(flags, flags)
  return open_with(AT_FDCWD, name, flags, mode);
}
int openat(int dir, const char *name, int flags, ...) {
  MODE(flags, flags)
  return open_with(dir, name, flags, mode);
}
int openat64(int dir, const char *name, int flags, ...) {
  MODE(flags, flags)
  return open_with(dir, name, flags, mode);
}
int creat(const char *name, mode_t mode) { return open_with(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

int ftruncate64(int fd, off_t length) {
  char path[PATH_MAX];
  if (!inside(fd, path)) return (int)syscall(SYS_ftruncate, fd, length);
  int action = verdict(TRUNCATE, path);
  if (fails(action)) return -1;
  int result = (int)syscall(SYS_ftruncate, fd, length);
  if (result == 0) note(TRUNCATE, inode_of(fd), length, 0, path, NULL, 0);
  after(action);
  return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

// Space cannot be promised here; programs do without.
int fallocate64(int fd, int mode, off_t at, off_t length) {
  char path[PATH_MAX];
  if (!inside(fd, path)) return (int)syscall(SYS_fallocate, fd, mode, at, length);
  errno = EOPNOTSUPP;
  return -1;
}
int fallocate(int fd, int mode, off_t at, off_t length) { return fallocate64(fd, mode, at, length); }

int unlinkat(int dir, const char *name, int flags) {
  char path[PATH_MAX];
  if (!inside_at(dir, name, path)) return (int)syscall(SYS_unlinkat, dir, name, flags);
  int action = verdict(UNLINK, path);
  if (fails(action)) return -1;
  int result = (int)syscall(SYS_unlinkat, dir, name, flags);
  if (result == 0) note(UNLINK, 0, 0, 0, path, NULL, 0);
  after(action);
  return result;
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int dir, const char *name, mode_t mode) {
  char path[PATH_MAX];
  if (!inside_at(dir, name, path)) return (int)syscall(SYS_mkdirat, dir, name, mode);
  int action = verdict(MKDIR, path);
  if (fails(action)) return -1;
  int result = (int)syscall(SYS_mkdirat, dir, name, mode);
  struct stat s;
  if (result == 0) note(MKDIR, stat(path, &s) == 0 ? s.st_ino : 0, 0, 0, path, NULL, 0);
  after(action);
  return result;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
  char old[PATH_MAX], new[PATH_MAX];
  if (!inside_at(from_dir, from, old) || !inside_at(to_dir, to, new))
    return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
  int action = verdict(LINK, new);
  if (fails(action)) return -1;
  int result = (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
  if (result == 0) note(LINK, 0, 0, 0, old, new, strlen(new));
  after(action);
  return result;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

// 0 or a negative error, as the kernel answers.
static long rename_with(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
  char old[PATH_MAX], new[PATH_MAX];
  int is_ours = inside_at(from_dir, from, old) & inside_at(to_dir, to, new);
  int action = is_ours ? verdict(RENAME, new) : -1;
  if (is_ours && fails(action)) return -errno;
  long result = syscall(SYS_renameat2, from_dir, from, to_dir, to, flags, PASS);
  if (result != 0) return -errno;
  if (is_ours) note(RENAME, 0, 0, 0, old, new, strlen(new));
  after(action);
  return 0;
}

static void trapped(int signal, siginfo_t *info, void *context) {
  (void)signal;
  int saved = errno;
#if defined(__x86_64__)
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  long a = r[REG_RDI], b = r[REG_RSI], c = r[REG_RDX], d = r[REG_R10], e = r[REG_R8];
  greg_t *result = &r[REG_RAX];
  if (info->si_syscall == SYS_rename) {
    *result = rename_with(AT_FDCWD, (const char *)a, AT_FDCWD, (const char *)b, 0);
    errno = saved;
    return;
  }
#else
  unsigned long long *r = ((ucontext_t *)context)->uc_mcontext.regs;
  long a = r[0], b = r[1], c = r[2], d = r[3], e = r[4];
  unsigned long long *result = &r[0];
#endif
  unsigned flags = info->si_syscall == SYS_renameat2 ? (unsigned)e : 0;
  *result = rename_with((int)a, (const char *)b, (int)c, (const char *)d, flags);
  errno = saved;
}

static void gate_renames(void) {
  struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER};
  if (sigaction(SIGSYS, &action, NULL) != 0) give_up("SIGSYS");
  struct sock_filter rules[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 0, 7),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#if defined(__x86_64__)
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rename, 4, 0),
#else
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat, 4, 0),
#endif
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat, 3, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 0, 3),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)PASS, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) give_up("PR_SET_NO_NEW_PRIVS");
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) give_up("seccomp");
}

static __attribute__((constructor)) void begin(void) {
  const char *dir = getenv("FAULT_DIR"), *path = getenv("FAULT_CTL"), *log = getenv("FAULT_LOG");
  if (!dir || !path) return;
  snprintf(folder, sizeof folder, "%s", dir);
  folder_length = strlen(folder);
  skip_sync = getenv("FAULT_SKIP_SYNC") != NULL;
  int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) give_up("FAULT_CTL");
  void *shared = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared == MAP_FAILED) give_up("FAULT_CTL");
  syscall(SYS_close, fd);
  if (log) {
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) give_up("FAULT_LOG");
  }
  gate_renames();
  control = shared;
}
