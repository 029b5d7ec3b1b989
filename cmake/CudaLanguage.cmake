# The CUDA compiler for our own kernels: the machine's toolkit 13, or the one that deploy/install_dependencies.sh --cuda brings.
# The runtime is shared, as LibTorch's libraries have it loaded already.
find_program(HOTLORA_NVCC nvcc REQUIRED NO_DEFAULT_PATH
  PATHS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin ${HOTLORA_LIBTORCH}/nvidia/cu13/bin)
set(CMAKE_CUDA_COMPILER ${HOTLORA_NVCC})
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
# Ampere, Ada, Hopper, and what comes after them by PTX.
set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90)
enable_language(CUDA)
