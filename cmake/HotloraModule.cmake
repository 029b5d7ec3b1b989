# One way to declare a module and its tests.
#
#   hotlora_module(adapters SRCS a.cc b.cc DEPS weights metrics [LIBS OpenSSL::Crypto] [TORCH])
#     static library hotlora_adapters, alias hotlora::adapters. DEPS are modules of ours, LIBS third-party targets.
#     TORCH adds LibTorch and the shared precompiled header.
#   hotlora_test(adapters SRCS x_test.cc DEPS adapters [LIBS ...] [TORCH] [LABELS unit] [TIMEOUT 120])
#     test program adapters_test, each case known to CTest as adapters.Suite.Case
#   hotlora_program(hotlora-server SRCS main.cc DEPS engine [LIBS ...] [TORCH])
#     a program in bin/
#   hotlora_python_test(e2e.generate SCRIPT generate_test.py [ARGS ...] [LABELS e2e] [TIMEOUT 300])
#     one test known to CTest as e2e.generate, run by the Python of install_dependencies.sh --test. Exit status 77 means
#     "skipped". It finds what was built in $HOTLORA_TEST_BIN, the repository in $HOTLORA_TEST_SOURCE and the
#     tools of tests/deploy/requirements.txt in $HOTLORA_TEST_TOOLS.
#
# With HOTLORA_TORCH off, what is marked TORCH is left out, and so is all that depends on it.
#
# The dependency table that includes must keep to is in cmake/check_layers.cmake.

add_library(hotlora_options INTERFACE)
target_compile_options(hotlora_options INTERFACE -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Werror=return-type
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety;-Werror=thread-safety>)
target_compile_definitions(hotlora_options INTERFACE HOTLORA_VERSION="${PROJECT_VERSION}")
target_include_directories(hotlora_options INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
target_link_libraries(hotlora_options INTERFACE Threads::Threads)

if(HOTLORA_TORCH AND HOTLORA_PCH)
  file(WRITE ${CMAKE_BINARY_DIR}/generated/aten_pch.cc "// Carries the precompiled ATen header that all LibTorch targets share.\n")
  add_library(hotlora_aten_pch STATIC ${CMAKE_BINARY_DIR}/generated/aten_pch.cc)
  # Used only by what is compiled with the very same flags. So CMAKE_POSITION_INDEPENDENT_CODE stays unset: it would give
  # libraries -fPIC and programs -fPIE, where the compiler's default is one flag for both.
  target_precompile_headers(hotlora_aten_pch PRIVATE <ATen/ATen.h>)
  target_compile_options(hotlora_aten_pch PRIVATE -Winvalid-pch)
  target_link_libraries(hotlora_aten_pch PRIVATE hotlora_options hotlora::torch)
endif()

function(hotlora_use_torch target)
  target_link_libraries(${target} PUBLIC hotlora::torch)
  if(HOTLORA_PCH)
    target_precompile_headers(${target} REUSE_FROM hotlora_aten_pch)
    target_compile_options(${target} PRIVATE -Winvalid-pch)
  endif()
endfunction()

# Sets `result` to whether `name` can be built at all; see "With HOTLORA_TORCH off" above.
function(hotlora_check_buildable name needs_torch deps result)
  set(${result} TRUE PARENT_SCOPE)
  if(HOTLORA_TORCH)
    return()
  endif()
  set(missing)
  if(needs_torch)
    set(missing LibTorch)
  endif()
  foreach(dep ${deps})
    if(NOT TARGET hotlora::${dep})
      list(APPEND missing ${dep})
    endif()
  endforeach()
  if(missing)
    list(JOIN missing ", " missing)
    message(STATUS "Left out without LibTorch: ${name} (needs ${missing})")
    set(${result} FALSE PARENT_SCOPE)
  endif()
endfunction()

function(hotlora_module name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "TORCH" "" "SRCS;DEPS;LIBS")
  hotlora_check_buildable(${name} "${ARG_TORCH}" "${ARG_DEPS}" buildable)
  if(NOT buildable)
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
  hotlora_check_buildable(${name}_test "${ARG_TORCH}" "${ARG_DEPS}" buildable)
  if(NOT buildable)
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
  target_link_libraries(${name}_test PRIVATE hotlora_options hotlora_golden_path ${ARG_DEPS} ${ARG_LIBS} GTest::gmock_main)
  if(ARG_TORCH)
    hotlora_use_torch(${name}_test)
  endif()
  gtest_discover_tests(${name}_test TEST_PREFIX ${name}. DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS ${ARG_LABELS} TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "OMP_WAIT_POLICY=PASSIVE")
endfunction()

function(hotlora_program name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "TORCH" "" "SRCS;DEPS;LIBS")
  hotlora_check_buildable(${name} "${ARG_TORCH}" "${ARG_DEPS}" buildable)
  if(NOT buildable)
    return()
  endif()
  add_executable(${name} ${ARG_SRCS})
  list(TRANSFORM ARG_DEPS PREPEND hotlora::)
  target_link_libraries(${name} PRIVATE hotlora_options ${ARG_DEPS} ${ARG_LIBS})
  if(ARG_TORCH)
    hotlora_use_torch(${name})
  endif()
endfunction()

# Sets `result` to the folder where install_dependencies.sh --test puts these requirements.
function(hotlora_find_venv kind requirements result)
  file(SHA256 ${CMAKE_SOURCE_DIR}/${requirements} hash)
  string(SUBSTRING ${hash} 0 12 hash)
  set(${result} ${HOTLORA_CACHE_DIR}/venv-${kind}-${hash} PARENT_SCOPE)
endfunction()

function(hotlora_python_test name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "SCRIPT;LABELS;TIMEOUT" "ARGS")
  if(NOT HOTLORA_TORCH)
    return()  # there is no server to test
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS e2e)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  hotlora_find_venv(test tests/requirements.txt venv)
  hotlora_find_venv(tools tests/deploy/requirements.txt tools)
  set(python ${venv}/bin/python)
  set(missing "no Python packages for tests; run deploy/install_dependencies.sh --test")
  add_test(NAME ${name} COMMAND sh -c "test -x \"$0\" || { echo \"${missing}\"; exit 77; }; exec \"$0\" \"$@\""
    ${python} ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_SCRIPT} ${ARG_ARGS})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABELS} TIMEOUT ${ARG_TIMEOUT} SKIP_RETURN_CODE 77
    ENVIRONMENT "OMP_WAIT_POLICY=PASSIVE;PYTHONDONTWRITEBYTECODE=1;HOTLORA_TEST_BIN=${CMAKE_BINARY_DIR}/bin;\
HOTLORA_TEST_SOURCE=${CMAKE_SOURCE_DIR};HOTLORA_TEST_TOOLS=${tools}/bin")
endfunction()
