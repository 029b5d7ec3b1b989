// The system's calls as our own libraries make them: the linker puts __wrap_X in the place of X (CMakeLists.txt). What
// shared libraries call (gRPC, Abseil, protobuf, LibTorch, the image libraries) is not touched.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <new>
#include <string>

#include "tests/faults/fault_points.h"

using hotlora::faults::Kind;
using hotlora::faults::Pass;

namespace {

// True if the call is to fail; errno is set.
bool Fails(Kind kind) {
  const int64_t action = Pass(kind);
  if (action > 0) {
    errno = static_cast<int>(action);
  }
  return action > 0;
}

// Buffers for files and pictures. Smaller blocks are what closures, lists and statuses are made of.
constexpr size_t kLeastBuffer = 4096;

void PassBuffer(size_t bytes) {
  if (bytes >= kLeastBuffer && Pass(Kind::kBuffer) != hotlora::faults::kNothing) {
    throw std::bad_alloc();
  }
}

void PassGrowth(const std::string& text, size_t bytes) {
  if (bytes > text.capacity()) {
    PassBuffer(bytes);
  }
}

mode_t ModeOf(int flags, va_list words) { return (flags & O_CREAT) != 0 ? va_arg(words, mode_t) : 0; }

// `real`(bytes), or a failure, half as many bytes, or the end of the file.
template <typename Read>
ssize_t ReadOr(size_t bytes, Read real) {
  const int64_t action = Pass(Kind::kRead);
  if (action > 0) {
    errno = static_cast<int>(action);
    return -1;
  }
  const bool is_short = action == hotlora::faults::kShort && bytes > 1;
  return action == hotlora::faults::kEnd ? 0 : real(is_short ? bytes / 2 : bytes);
}

}  // namespace

#define WRAPPED(result, name, ...)              \
  extern "C" result __real_##name(__VA_ARGS__); \
  extern "C" result __wrap_##name(__VA_ARGS__)

extern "C" int __real_open(const char* path, int flags, ...);
extern "C" int __wrap_open(const char* path, int flags, ...) {
  va_list words;
  va_start(words, flags);
  const mode_t mode = ModeOf(flags, words);
  va_end(words);
  return Fails(Kind::kOpen) ? -1 : __real_open(path, flags, mode);
}

extern "C" int __real_openat(int folder, const char* path, int flags, ...);
extern "C" int __wrap_openat(int folder, const char* path, int flags, ...) {
  va_list words;
  va_start(words, flags);
  const mode_t mode = ModeOf(flags, words);
  va_end(words);
  return Fails(Kind::kOpen) ? -1 : __real_openat(folder, path, flags, mode);
}

WRAPPED(DIR*, fdopendir, int folder) { return Fails(Kind::kOpen) ? nullptr : __real_fdopendir(folder); }

WRAPPED(ssize_t, read, int file, void* to, size_t bytes) {
  return ReadOr(bytes, [&](size_t most) { return __real_read(file, to, most); });
}

WRAPPED(ssize_t, pread, int file, void* to, size_t bytes, off_t offset) {
  return ReadOr(bytes, [&](size_t most) { return __real_pread(file, to, most, offset); });
}

WRAPPED(ssize_t, write, int file, const void* from, size_t bytes) {
  const int64_t action = Pass(Kind::kWrite);
  if (action > 0) {
    errno = static_cast<int>(action);
    return -1;
  }
  const bool is_short = action == hotlora::faults::kShort && bytes > 1;
  return __real_write(file, from, is_short ? bytes / 2 : bytes);
}

WRAPPED(int, fallocate, int file, int mode, off_t offset, off_t bytes) {
  return Fails(Kind::kWrite) ? -1 : __real_fallocate(file, mode, offset, bytes);
}

WRAPPED(int, fsync, int file) { return Fails(Kind::kSync) ? -1 : __real_fsync(file); }

WRAPPED(int, rename, const char* from, const char* to) { return Fails(Kind::kRename) ? -1 : __real_rename(from, to); }

WRAPPED(int, renameat, int from_folder, const char* from, int to_folder, const char* to) {
  return Fails(Kind::kRename) ? -1 : __real_renameat(from_folder, from, to_folder, to);
}

WRAPPED(int, linkat, int from_folder, const char* from, int to_folder, const char* to, int flags) {
  return Fails(Kind::kRename) ? -1 : __real_linkat(from_folder, from, to_folder, to, flags);
}

WRAPPED(int, mkdirat, int folder, const char* path, mode_t mode) {
  return Fails(Kind::kRename) ? -1 : __real_mkdirat(folder, path, mode);
}

WRAPPED(int, unlink, const char* path) { return Fails(Kind::kUnlink) ? -1 : __real_unlink(path); }

WRAPPED(int, unlinkat, int folder, const char* path, int flags) {
  return Fails(Kind::kUnlink) ? -1 : __real_unlinkat(folder, path, flags);
}

WRAPPED(int, fstat, int file, struct stat* info) { return Fails(Kind::kStat) ? -1 : __real_fstat(file, info); }

WRAPPED(int, fstatat, int folder, const char* path, struct stat* info, int flags) {
  return Fails(Kind::kStat) ? -1 : __real_fstatat(folder, path, info, flags);
}

WRAPPED(void*, mmap, void* at, size_t bytes, int protection, int flags, int file, off_t offset) {
  return Fails(Kind::kMap) ? MAP_FAILED : __real_mmap(at, bytes, protection, flags, file, offset);
}

// --- memory: operator new, new[], and what libstdc++ has compiled of std::string

WRAPPED(void*, _Znwm, size_t bytes) {
  PassBuffer(bytes);
  return __real__Znwm(bytes);
}

WRAPPED(void*, _Znam, size_t bytes) {
  PassBuffer(bytes);
  return __real__Znam(bytes);
}

// std::string::_M_create, where strings get their memory if the compiler has put the rest in place.
WRAPPED(char*, _ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE9_M_createERmm, std::string* text, size_t* capacity,
        size_t old_capacity) {
  PassBuffer(*capacity);
  return __real__ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE9_M_createERmm(text, capacity, old_capacity);
}

// std::string(size_t, char), before which there is no string.
WRAPPED(void, _ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE12_M_constructEmc, std::string* text, size_t bytes,
        char filling) {
  PassBuffer(bytes);
  __real__ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE12_M_constructEmc(text, bytes, filling);
}

// std::string::append(const char*, size_t) and what it is made of.
WRAPPED(std::string*, _ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE6appendEPKcm, std::string* text,
        const char* from, size_t bytes) {
  PassGrowth(*text, text->size() + bytes);
  return __real__ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE6appendEPKcm(text, from, bytes);
}

WRAPPED(std::string*, _ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE9_M_appendEPKcm, std::string* text,
        const char* from, size_t bytes) {
  PassGrowth(*text, text->size() + bytes);
  return __real__ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE9_M_appendEPKcm(text, from, bytes);
}
