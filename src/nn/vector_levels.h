#ifndef HOTLORA_SRC_NN_VECTOR_LEVELS_H_
#define HOTLORA_SRC_NN_VECTOR_LEVELS_H_

// One build serves every x86-64 CPU: the compiler makes a copy of a function for each level, and the loader picks one.
#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define HOTLORA_VECTOR_LEVELS __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define HOTLORA_VECTOR_LEVELS
#endif

#endif  // HOTLORA_SRC_NN_VECTOR_LEVELS_H_
