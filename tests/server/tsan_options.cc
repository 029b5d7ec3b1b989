// What ThreadSanitizer must not report: gRPC and Abseil are Debian's, built without it, so it sees
// neither their locks nor their atomics. Compiled into the test program; does nothing in other
// builds.

extern "C" const char* __tsan_default_options() { return "ignore_noninstrumented_modules=1"; }

extern "C" const char* __tsan_default_suppressions() { return ""; }
