# The CUDA compiler for our own kernels. deploy/find_nvcc.sh says where it is looked for.
execute_process(COMMAND ${CMAKE_SOURCE_DIR}/deploy/find_nvcc.sh
  OUTPUT_VARIABLE nvcc ERROR_VARIABLE error RESULT_VARIABLE result OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${error}")
endif()
set(CMAKE_CUDA_COMPILER ${nvcc})
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
# Ampere, Ada, Hopper, and what comes after them by PTX.
set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90)
enable_language(CUDA)
# cmake/LibTorch.cmake names the runtime: the one that LibTorch's libraries use, not the toolkit's.
set(CMAKE_CUDA_RUNTIME_LIBRARY None)
# Where programs find libhotlora_cuda.so, which they load by name.
set(CMAKE_BUILD_RPATH ${CMAKE_BINARY_DIR}/lib)
