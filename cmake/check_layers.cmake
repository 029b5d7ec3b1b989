# Checks that every #include in src/, server/ and client/ keeps to the dependency table below, and prints file, line and
# rule of each one that does not.
#
#   cmake -DROOT=<repository> -P cmake/check_layers.cmake
#
# It is the test named `layers`. To allow a new dependency, change the table in the same commit, and say there why.
cmake_minimum_required(VERSION 3.25)

# --- The table -------------------------------------------------------------------------------------------------------
# What a module may include of ours, itself apart: a module, or one header of a module.

set(may_include_src/base "")
set(may_include_src/metrics base)
set(may_include_src/image base)
set(may_include_src/request image base)
set(may_include_src/tensor base)
set(may_include_src/weights tensor base)
set(may_include_src/nn tensor base)
# The kernels of libhotlora_cuda.so.
set(may_include_src/cuda nn/merge_tile.h tensor/device_kernels.h)
set(may_include_src/sampling tensor base)
set(may_include_src/sdxl nn weights tensor base)
set(may_include_src/adapters nn/lora_delta.h nn/slot_layout.h nn/adapter_set.h weights tensor metrics request base)
set(may_include_src/pipeline sdxl sampling nn weights request image tensor metrics base)
set(may_include_src/admission request metrics base)
set(may_include_src/scheduler
    admission pipeline/pipeline.h pipeline/init_picture.h pipeline/png_parameters.h nn/adapter_set.h
    adapters/adapter_store.h adapters/adapter_info.h adapters/embedding_store.h image request metrics base)
set(may_include_src/engine
    scheduler admission pipeline adapters sdxl sampling nn weights tensor request metrics base)
set(may_include_server engine adapters/adapter_info.h request metrics base)
# The client reads adapters where they lie (`adapters inspect`), with what the server reads them with.
set(may_include_client adapters/adapter_inspection.h sdxl/module_list.h base)
# The one place that wires the engine to the networks.
set(may_include_server/main.cc pipeline adapters sdxl tensor)

# --- Third-party headers: which folders or files may include what matches, and the rule in words -----------------------

set(restricted grpc prometheus spdlog aten torch)
set(grpc_matches "^(grpc|grpcpp|google)/|\\.pb\\.h$")
set(grpc_allowed "^(server|client)/")
set(grpc_rule "gRPC and protobuf headers only in server/ and client/")
set(prometheus_matches "^prometheus/")
set(prometheus_allowed "^src/metrics/")
set(prometheus_rule "prometheus-cpp headers only in src/metrics/")
set(spdlog_matches "^(spdlog|fmt)/")
set(spdlog_allowed "^src/base/logging\\.cc$")
set(spdlog_rule "spdlog only in src/base/logging.cc")
set(aten_matches "^ATen/ATen\\.h$")
set(aten_allowed "\\.cc$")
set(aten_rule "<ATen/ATen.h> in no header: it takes 12 s to parse")
set(torch_matches "^torch/")
set(torch_allowed "^$")
set(torch_rule "<torch/...> nowhere: ATen and c10 are enough, and parse in half the time")

# Where no LibTorch header at all may appear: the modules that ThreadSanitizer checks, and the borders to them.
set(torch_free "^(src/(base|metrics|image|request|admission|scheduler|engine)|server|client)/")
set(torch_free_headers
    src/pipeline/pipeline.h src/pipeline/init_picture.h src/pipeline/png_parameters.h src/adapters/adapter_store.h
    src/adapters/adapter_info.h src/adapters/embedding_store.h src/nn/adapter_set.h
    src/adapters/adapter_inspection.h src/adapters/adapter_memory.h src/adapters/adapter_metadata.h
    src/sdxl/module_list.h src/sdxl/sdxl_config.h src/sdxl/clip_tokenizer.h src/sdxl/clip_tokenizer_files.h
    src/sdxl/tokenizer_json.h src/sampling/scheduler_config.h
    src/weights/checkpoint_configs.h src/weights/model_files.h src/weights/safetensors_file.h src/weights/sgm_names.h src/weights/module_table.h
    src/tensor/tensor_fwd.h)
set(torch_free_rule "no LibTorch header in a torch-free module or interface")

# --- The check -------------------------------------------------------------------------------------------------------

set_property(GLOBAL PROPERTY violations 0)

function(report file text rule)
  file(READ ${ROOT}/${file} content)
  string(FIND "${content}" "${text}" position)
  string(SUBSTRING "${content}" 0 ${position} before)
  string(REGEX REPLACE "[^\n]" "" newlines "${before}")
  string(LENGTH "${newlines}" line)
  math(EXPR line "${line} + 1")
  message("${file}:${line}: ${text}\n    rule: ${rule}")
  get_property(count GLOBAL PROPERTY violations)
  math(EXPR count "${count} + 1")
  set_property(GLOBAL PROPERTY violations ${count})
endfunction()

# The module a file belongs to, as the table names it.
function(module_of file result)
  string(REGEX MATCH "^(src/[^/]+|server|client)" module ${file})
  set(${result} ${module} PARENT_SCOPE)
endfunction()

function(check_ours file text header)
  module_of(${file} from)
  module_of(${header} to)
  if(from STREQUAL to)
    return()
  endif()
  if(NOT DEFINED may_include_${from})
    report(${file} "${text}" "${from} is not in the table of cmake/check_layers.cmake")
    return()
  endif()
  string(REGEX REPLACE "^src/" "" header_in_src ${header})
  string(REGEX REPLACE "^src/" "" to_in_src ${to})
  set(allowed ${may_include_${from}} ${may_include_${file}})
  if(NOT to MATCHES "^src/" OR NOT (to_in_src IN_LIST allowed OR header_in_src IN_LIST allowed))
    list(JOIN allowed ", " allowed)
    report(${file} "${text}" "${from} may include only: ${allowed}")
  endif()
endfunction()

function(check_third_party file text header)
  foreach(library ${restricted})
    if(header MATCHES "${${library}_matches}" AND NOT file MATCHES "${${library}_allowed}")
      report(${file} "${text}" "${${library}_rule}")
    endif()
  endforeach()
  if(header MATCHES "^(ATen|c10|torch)/" AND (file MATCHES "${torch_free}" OR file IN_LIST torch_free_headers))
    report(${file} "${text}" "${torch_free_rule}")
  endif()
endfunction()

function(check_file file)
  file(STRINGS ${ROOT}/${file} includes REGEX "^[ \t]*#[ \t]*include[ \t]*[<\"]")
  foreach(line IN LISTS includes)
    string(REGEX MATCH "#[ \t]*include[ \t]*[<\"]([^>\"]+)[>\"]" text "${line}")
    set(header ${CMAKE_MATCH_1})
    if(header MATCHES "^(src|server|client)/")
      check_ours(${file} "${text}" ${header})
    elseif(text MATCHES "\"" AND NOT header MATCHES "^[^./][^/]*/")
      report(${file} "${text}" "paths of quoted includes begin at the repository root")
    else()
      check_third_party(${file} "${text}" ${header})
    endif()
  endforeach()
  # Unpickling runs what the file says; only safetensors are read here.
  file(STRINGS ${ROOT}/${file} unsafe REGEX "torch::(load|jit|pickle)|pickle_load|[Uu]npickler")
  foreach(line IN LISTS unsafe)
    if(NOT line MATCHES "^[ \t]*//")
      report(${file} "${line}" "nothing is unpickled: adapters and checkpoints are untrusted")
    endif()
  endforeach()
endfunction()

file(GLOB_RECURSE files RELATIVE ${ROOT}
  ${ROOT}/src/*.h ${ROOT}/src/*.cc ${ROOT}/src/*.cu ${ROOT}/server/*.h ${ROOT}/server/*.cc ${ROOT}/client/*.h
  ${ROOT}/client/*.cc)
list(LENGTH files count)
if(count EQUAL 0)
  message(FATAL_ERROR "no source files under ${ROOT}")
endif()
foreach(file ${files})
  check_file(${file})
endforeach()
get_property(violations GLOBAL PROPERTY violations)
if(violations GREATER 0)
  message(FATAL_ERROR "${violations} includes break the layers")
endif()
message(STATUS "layers: ${count} files keep to the table")
