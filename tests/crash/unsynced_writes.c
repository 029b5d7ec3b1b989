// Preloaded into a server (LD_PRELOAD): a journal of what it changes below one folder, and of what it syncs, so that
// power_cut.py can tell what a power cut would have left. Syncs are written down and not done.
//
//   UNSYNCED_FOLDER   the folder, without links in its path
//   UNSYNCED_JOURNAL  the journal, outside of it: a line for each change, of when it was done (seconds of the monotonic
//                     clock), what, inodes and names, with tabs between
//   UNSYNCED_KEPT     a folder on the same file system: every new file is linked there under its inode's number, so
//                     that its bytes outlive its names
//   UNSYNCED_KILL_AT  the process is killed after so many lines; unset: never
//
// Only calls with a folder's descriptor are seen, which is how the server reaches the folder. power_cut.py compares the
// whole journal with the disk, so a call that is missing here does not stay unseen.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;  // a change and its line are one step
static int journal = -1;
static long lines = 0;

// The function that this one stands in front of.
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_watched(int descriptor) {
  const char* const folder = getenv("UNSYNCED_FOLDER");
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof(path) - 1);
  if (folder == NULL || descriptor < 0 || length < 0) {
    return 0;
  }
  path[length] = '\0';
  const size_t prefix = strlen(folder);
  return strncmp(path, folder, prefix) == 0 && (path[prefix] == '/' || path[prefix] == '\0');
}

static unsigned long inode_of(int descriptor) {
  struct stat info;
  return fstat(descriptor, &info) == 0 ? (unsigned long)info.st_ino : 0;
}

static unsigned long inode_at(int folder, const char* name) {
  struct stat info;
  return fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) == 0 ? (unsigned long)info.st_ino : 0;
}

static void note(const char* format, ...) {
  char line[2 * NAME_MAX + 256];
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  int length = snprintf(line, sizeof(line), "%lld.%09ld\t", (long long)now.tv_sec, now.tv_nsec);
  va_list arguments;
  va_start(arguments, format);
  length += vsnprintf(line + length, sizeof(line) - (size_t)length, format, arguments);
  va_end(arguments);
  if (journal < 0) {
    journal = REAL(open)(getenv("UNSYNCED_JOURNAL"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  }
  if (REAL(write)(journal, line, (size_t)length) != length) {
    abort();
  }
  const char* const kill_at = getenv("UNSYNCED_KILL_AT");
  if (++lines == (kill_at == NULL ? -1 : atol(kill_at))) {
    kill(getpid(), SIGKILL);
  }
}

// Does the call, and if it succeeds in the folder, writes the line.
#define WATCHED(descriptor, result_type, call, ...) \
  const int saved_watch = is_watched(descriptor);   \
  if (!saved_watch) {                               \
    return call;                                    \
  }                                                 \
  pthread_mutex_lock(&mutex);                       \
  const result_type result = call;                  \
  const int error = errno;                          \
  if (result >= 0) {                                \
    note(__VA_ARGS__);                              \
  }                                                 \
  pthread_mutex_unlock(&mutex);                     \
  errno = error;                                    \
  return result;

int openat(int folder, const char* name, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  if ((flags & O_EXCL) == 0 || !is_watched(folder)) {
    return REAL(openat)(folder, name, flags, mode);
  }
  pthread_mutex_lock(&mutex);
  const int file = REAL(openat)(folder, name, flags, mode);
  const int error = errno;
  if (file >= 0) {
    char kept[PATH_MAX];
    snprintf(kept, sizeof(kept), "%s/%lu", getenv("UNSYNCED_KEPT"), inode_of(file));
    if (REAL(linkat)(folder, name, AT_FDCWD, kept, 0) != 0) {
      abort();
    }
    note("create\t%lu\t%s\t%lu\n", inode_of(folder), name, inode_of(file));
  }
  pthread_mutex_unlock(&mutex);
  errno = error;
  return file;
}

ssize_t write(int file, const void* bytes, size_t size) {
  WATCHED(file, ssize_t, REAL(write)(file, bytes, size), "write\t%lu\n", inode_of(file))
}

int fsync(int file) { WATCHED(file, int, saved_watch ? 0 : REAL(fsync)(file), "sync\t%lu\n", inode_of(file)) }

int mkdirat(int folder, const char* name, mode_t mode) {
  WATCHED(folder, int, REAL(mkdirat)(folder, name, mode), "mkdir\t%lu\t%s\t%lu\n", inode_of(folder), name,
          inode_at(folder, name))
}

int unlinkat(int folder, const char* name, int flags) {
  WATCHED(folder, int, REAL(unlinkat)(folder, name, flags), "unlink\t%lu\t%s\n", inode_of(folder), name)
}

int linkat(int from, const char* old_name, int to, const char* name, int flags) {
  WATCHED(to, int, REAL(linkat)(from, old_name, to, name, flags), "link\t%lu\t%s\t%lu\n", inode_of(to), name,
          inode_at(to, name))
}

int renameat(int from, const char* old_name, int to, const char* name) {
  WATCHED(to, int, REAL(renameat)(from, old_name, to, name), "rename\t%lu\t%s\t%lu\t%s\n", inode_of(from), old_name,
          inode_of(to), name)
}
