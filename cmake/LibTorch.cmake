# Imported targets for the LibTorch that PyPI's torch wheel carries.
#
#   hotlora::torch   libtorch_cpu and libc10; with HOTLORA_CUDA also libtorch_cuda and libc10_cuda
#
# The wheel's own CMake package is not used: it demands a CUDA toolkit even for CPU builds. Its headers come last on the
# include path (-idirafter), because the wheel ships an old google/protobuf and its own fmt beside them.
set(HOTLORA_TORCH_VERSION 2.11.0)
set(HOTLORA_LIBTORCH ${HOTLORA_CACHE_DIR}/libtorch-${HOTLORA_TORCH_VERSION} CACHE PATH
    "Where deploy/install_dependencies.sh unpacked the torch wheel")

if(NOT EXISTS ${HOTLORA_LIBTORCH}/torch/lib/libtorch_cpu.so)
  message(FATAL_ERROR "LibTorch ${HOTLORA_TORCH_VERSION} is not at ${HOTLORA_LIBTORCH}. "
                      "Run deploy/install_dependencies.sh, or set HOTLORA_LIBTORCH.")
endif()

function(hotlora_import_torch_library target library)
  add_library(${target} SHARED IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES IMPORTED_LOCATION ${HOTLORA_LIBTORCH}/torch/lib/${library}.so)
endfunction()
hotlora_import_torch_library(hotlora_torch_c10 libc10)
hotlora_import_torch_library(hotlora_torch_cpu libtorch_cpu)

add_library(hotlora_torch INTERFACE)
add_library(hotlora::torch ALIAS hotlora_torch)
target_compile_options(hotlora_torch INTERFACE
  "SHELL:-idirafter ${HOTLORA_LIBTORCH}/torch/include/torch/csrc/api/include"
  "SHELL:-idirafter ${HOTLORA_LIBTORCH}/torch/include")
target_compile_definitions(hotlora_torch INTERFACE
  _GLIBCXX_USE_CXX11_ABI=1 HOTLORA_LIBTORCH_VERSION="${HOTLORA_TORCH_VERSION}")
# The wheel's libraries name what they need by an rpath of their own; the linker need not resolve it again.
target_link_options(hotlora_torch INTERFACE -Wl,--allow-shlib-undefined)
target_link_libraries(hotlora_torch INTERFACE hotlora_torch_cpu hotlora_torch_c10 Threads::Threads)

if(HOTLORA_CUDA)
  # Headers and runtime library are the wheel's own, so that they match LibTorch and one process never meets two of them.
  # A tree without CUDA headers may borrow those of a toolkit. find_package(CUDAToolkit) is not used: CMake 3.25's stops
  # with an error on toolkit 13, which has no nvToolsExt.
  find_path(HOTLORA_CUDA_INCLUDE_DIR crt/host_config.h REQUIRED NO_DEFAULT_PATH
    PATHS ${HOTLORA_LIBTORCH}/nvidia/cu13/include $ENV{CUDA_HOME}/include /usr/local/cuda-13.0/include
          /usr/local/cuda/include)
  message(STATUS "CUDA headers: ${HOTLORA_CUDA_INCLUDE_DIR}")
  if(NOT EXISTS ${HOTLORA_LIBTORCH}/torch/lib/libtorch_cuda.so)
    message(FATAL_ERROR "${HOTLORA_LIBTORCH} holds the CPU half of LibTorch. "
                        "Run deploy/install_dependencies.sh --cuda.")
  endif()
  hotlora_import_torch_library(hotlora_torch_c10_cuda libc10_cuda)
  hotlora_import_torch_library(hotlora_torch_cuda libtorch_cuda)
  add_library(hotlora_torch_cudart SHARED IMPORTED GLOBAL)
  set_target_properties(hotlora_torch_cudart PROPERTIES
    IMPORTED_LOCATION ${HOTLORA_LIBTORCH}/nvidia/cu13/lib/libcudart.so.13)
  # Nothing of ours calls libtorch_cuda by name: it registers its kernels when it is loaded.
  target_link_libraries(hotlora_torch INTERFACE
    -Wl,--no-as-needed hotlora_torch_cuda hotlora_torch_c10_cuda -Wl,--as-needed hotlora_torch_cudart)
  target_include_directories(hotlora_torch SYSTEM INTERFACE
    ${HOTLORA_CUDA_INCLUDE_DIR} ${HOTLORA_CUDA_INCLUDE_DIR}/cccl)
  target_compile_definitions(hotlora_torch INTERFACE HOTLORA_CUDA=1)
endif()
