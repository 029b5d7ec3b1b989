# One way to declare a module and its tests.
#
#   hotlora_module(adapters SRCS a.cc b.cc DEPS weights metrics [LIBS OpenSSL::Crypto] [TORCH])
#     static library hotlora_adapters, alias hotlora::adapters. DEPS are modules of ours, LIBS third-party targets.
#     TORCH adds LibTorch and the shared precompiled header.
#   hotlora_test(adapters SRCS x_test.cc DEPS adapters [LIBS ...] [TORCH] [LABELS unit] [TIMEOUT 120])
#     test program adapters_test, each case known to CTest as adapters.Suite.Case
#
# The dependency table that includes must keep to is in cmake/check_layers.cmake.

add_library(hotlora_options INTERFACE)
target_compile_options(hotlora_options INTERFACE -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Werror=return-type)
target_compile_definitions(hotlora_options INTERFACE HOTLORA_VERSION="${PROJECT_VERSION}")
target_include_directories(hotlora_options INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
target_link_libraries(hotlora_options INTERFACE Threads::Threads)

if(HOTLORA_TORCH AND HOTLORA_PCH)
  file(WRITE ${CMAKE_BINARY_DIR}/generated/aten_pch.cc "// Carries the precompiled ATen header that all LibTorch targets share.\n")
  add_library(hotlora_aten_pch STATIC ${CMAKE_BINARY_DIR}/generated/aten_pch.cc)
  target_precompile_headers(hotlora_aten_pch PRIVATE <ATen/ATen.h>)
  target_compile_options(hotlora_aten_pch PRIVATE -Winvalid-pch)
  target_link_libraries(hotlora_aten_pch PRIVATE hotlora_options hotlora::torch)
endif()

function(hotlora_use_torch target)
  target_link_libraries(${target} PUBLIC hotlora::torch)
  if(HOTLORA_PCH)
    target_precompile_headers(${target} REUSE_FROM hotlora_aten_pch)
    # Programs are compiled with -fPIE otherwise, and cannot use a header precompiled with -fPIC.
    target_compile_options(${target} PRIVATE -Winvalid-pch -fPIC)
  endif()
endfunction()

function(hotlora_module name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "TORCH" "" "SRCS;DEPS;LIBS")
  if(ARG_TORCH AND NOT HOTLORA_TORCH)
    return()
  endif()
  add_library(hotlora_${name} STATIC ${ARG_SRCS})
  add_library(hotlora::${name} ALIAS hotlora_${name})
  list(TRANSFORM ARG_DEPS PREPEND hotlora::)
  target_link_libraries(hotlora_${name} PUBLIC hotlora_options ${ARG_DEPS} ${ARG_LIBS})
  if(ARG_TORCH)
    hotlora_use_torch(hotlora_${name})
  endif()
endfunction()

function(hotlora_test name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "TORCH" "LABELS;TIMEOUT" "SRCS;DEPS;LIBS")
  if(ARG_TORCH AND NOT HOTLORA_TORCH)
    return()
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name}_test ${ARG_SRCS})
  list(TRANSFORM ARG_DEPS PREPEND hotlora::)
  target_link_libraries(${name}_test PRIVATE hotlora_options ${ARG_DEPS} ${ARG_LIBS} GTest::gmock_main)
  target_compile_definitions(${name}_test PRIVATE
    HOTLORA_GOLDEN_DIR="${CMAKE_SOURCE_DIR}/tests/golden" HOTLORA_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  if(ARG_TORCH)
    hotlora_use_torch(${name}_test)
  endif()
  gtest_discover_tests(${name}_test TEST_PREFIX ${name}. DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS ${ARG_LABELS} TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "OMP_WAIT_POLICY=PASSIVE")
endfunction()
