# Imported targets for the LibTorch that PyPI's torch wheel carries.
#
#   hotlora::torch   libtorch_cpu, libc10 and the libgomp that they use
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
  set_target_properties(${target} PROPERTIES IMPORTED_LOCATION ${HOTLORA_LIBTORCH}/torch/lib/${library}.so${ARGN})
endfunction()
hotlora_import_torch_library(hotlora_torch_c10 libc10)
hotlora_import_torch_library(hotlora_torch_cpu libtorch_cpu)
hotlora_import_torch_library(hotlora_torch_gomp libgomp .1)

add_library(hotlora_torch INTERFACE)
add_library(hotlora::torch ALIAS hotlora_torch)
# Without links, so that a compiler cache serves trees that link to the same headers (tests/cuda_build.sh).
file(REAL_PATH ${HOTLORA_LIBTORCH}/torch/include libtorch_include)
target_compile_options(hotlora_torch INTERFACE
  "SHELL:-idirafter ${libtorch_include}/torch/csrc/api/include" "SHELL:-idirafter ${libtorch_include}")
target_compile_definitions(hotlora_torch INTERFACE
  _GLIBCXX_USE_CXX11_ABI=1 HOTLORA_LIBTORCH_VERSION="${HOTLORA_TORCH_VERSION}")
# The wheel's libraries name what they need by an rpath of their own; the linker need not resolve it again.
target_link_options(hotlora_torch INTERFACE -Wl,--allow-shlib-undefined)
target_link_libraries(hotlora_torch INTERFACE hotlora_torch_cpu hotlora_torch_c10 hotlora_torch_gomp Threads::Threads)

# The CUDA half is linked by libhotlora_cuda.so alone (src/cuda), which programs load at run time. Linked to a program, its
# libraries' thread-local storage (190 KB, half of it cuBLASLt's) would be laid on the stack of every thread, and threads of
# 100 KB, such as the metrics endpoint's, could not be started.
if(HOTLORA_CUDA)
  hotlora_import_torch_library(hotlora_torch_cuda libtorch_cuda)
  hotlora_import_torch_library(hotlora_torch_c10_cuda libc10_cuda)
  add_library(hotlora_cuda_runtime SHARED IMPORTED GLOBAL)
  set_target_properties(hotlora_cuda_runtime PROPERTIES
    IMPORTED_LOCATION ${HOTLORA_LIBTORCH}/nvidia/cu13/lib/libcudart.so.13)
  foreach(library torch_cuda torch_c10_cuda cuda_runtime)
    get_target_property(file hotlora_${library} IMPORTED_LOCATION)
    if(NOT EXISTS ${file})
      message(FATAL_ERROR "${file} is not there: this is the CPU half of LibTorch. "
                          "Run deploy/install_dependencies.sh --cuda.")
    endif()
  endforeach()
endif()
