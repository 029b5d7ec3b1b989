# Checks that every #include in src/, server/ and client/ keeps to the dependency table below, and prints file, line and
# rule of each one that does not; and that the table permits nothing that no file uses.
#
#   cmake -DROOT=<repository> [-DPARTIAL=ON] -P cmake/check_layers.cmake      PARTIAL: ROOT holds a part of the sources, so
#                                                                             what is unused there is no error
#
# It is the test named `layers`. To allow a new dependency, change the table in the same commit, and say there why. The
# table in docs/architecture.md has the same modules; tests/layers/architecture_test.py compares them.
cmake_minimum_required(VERSION 3.25)

# --- The table -------------------------------------------------------------------------------------------------------
# What a module may include of ours, itself apart: a module, or one header of a module. A file with a row of its own may
# include only what that row lists, whatever its module may.

set(may_include_src/base "")
# The enums whose values are labels.
set(may_include_src/metrics image/rgb_image.h request/image_request.h base)
set(may_include_src/image base)
set(may_include_src/request image base)
set(may_include_src/tensor base)
set(may_include_src/weights tensor base)
# How a request weighs an adapter by block and by range, as values.
set(may_include_src/nn request/block_weights.h request/evaluation_range.h tensor)
# The kernels of libhotlora_cuda.so.
set(may_include_src/cuda nn/merge_tile.h tensor/device_kernels.h)
set(may_include_src/sampling request/image_request.h tensor base)
set(may_include_src/sdxl nn weights image/middle_square.h tensor base)
set(may_include_src/adapter_format weights/module_table.h weights/safetensors_file.h weights/sgm_names.h base)
set(may_include_src/adapters
    adapter_format nn/lora_delta.h nn/block_layout.h nn/adapter_set.h weights image/middle_square.h tensor metrics request
    base)
set(may_include_src/controls adapters sdxl weights tensor metrics base)
set(may_include_src/pipeline sdxl sampling nn weights request image tensor base)
set(may_include_src/scheduler
    pipeline/pipeline.h pipeline/init_picture.h pipeline/png_parameters.h pipeline/request_pictures.h
    nn/adapter_schedule.h
    adapters/adapter_store.h adapters/adapter_info.h adapters/embedding_store.h adapters/encoder_fit.h
    adapters/stored_kind.h image request
    metrics base)
set(may_include_src/engine scheduler pipeline adapters controls sdxl weights tensor request metrics base)
# What server/ sees of the engine: plain values alone.
set(may_include_src/engine/engine.h
    engine/statistics.h scheduler/batch_policy.h scheduler/stuck_work.h adapters/adapter_info.h adapters/adapter_upload.h request
    base/memory_stats.h)
set(may_include_src/engine/statistics.h adapters/adapter_statistics.h request/model_info.h base/memory_stats.h
    scheduler/cost_report.h)
set(may_include_server engine adapters/adapter_info.h adapters/encoder_fit.h image/image_header.h request metrics base)
# The client reads adapters where they lie (`adapters inspect`), with what the server reads them with.
set(may_include_client adapter_format/adapter_inspection.h sdxl/module_list.h base)

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
set(torch_free "^(src/(base|metrics|image|request|adapter_format|scheduler|engine)|server|client)/")
set(torch_free_headers
    src/pipeline/pipeline.h src/pipeline/init_picture.h src/pipeline/png_parameters.h src/pipeline/request_pictures.h
    src/controls/control_store_options.h src/adapters/adapter_store.h
    src/adapters/adapter_info.h src/adapters/adapter_lease.h src/adapters/adapter_statistics.h
    src/adapters/adapter_upload.h src/adapters/embedding_store.h src/nn/adapter_schedule.h src/nn/adapter_set.h
    src/adapters/adapter_memory.h
    src/sdxl/config_reader.h src/sdxl/controlnet_config.h src/sdxl/image_encoder_config.h src/sdxl/image_prompt_config.h
    src/sdxl/module_list.h src/sdxl/sdxl_config.h src/sdxl/clip_tokenizer.h src/sdxl/clip_tokenizer_files.h
    src/sdxl/tokenizer_json.h src/sampling/scheduler_config.h
    src/weights/checkpoint_configs.h src/weights/model_files.h src/weights/opened_file.h src/weights/safetensors_file.h
    src/weights/sgm_names.h src/weights/weight_index.h
    src/weights/module_table.h
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

# Whether a file is checked to have no LibTorch header in it.
function(is_torch_free file result)
  set(${result} OFF PARENT_SCOPE)
  if(file MATCHES "${torch_free}" OR file IN_LIST torch_free_headers)
    set(${result} ON PARENT_SCOPE)
  endif()
endfunction()

function(check_table file text header)
  module_of(${file} row)
  module_of(${header} to)
  if(DEFINED may_include_${file})
    set(row ${file})
  elseif(row STREQUAL to)
    return()
  elseif(NOT DEFINED may_include_${row})
    report(${file} "${text}" "${row} is not in the table of cmake/check_layers.cmake")
    return()
  endif()
  string(REGEX REPLACE "^src/" "" header_in_src ${header})
  string(REGEX REPLACE "^src/" "" to_in_src ${to})
  foreach(entry ${to_in_src} ${header_in_src})
    if(to MATCHES "^src/" AND entry IN_LIST may_include_${row})
      set_property(GLOBAL PROPERTY "used ${row} ${entry}" ON)
      return()
    endif()
  endforeach()
  list(JOIN may_include_${row} ", " allowed)
  report(${file} "${text}" "${row} may include only: ${allowed}")
endfunction()

function(check_ours file text header)
  check_table(${file} "${text}" ${header})
  is_torch_free(${file} is_free)
  is_torch_free(${header} takes_free)
  if(file MATCHES "\\.h$" AND is_free AND NOT takes_free)
    report(${file} "${text}" "a header without LibTorch includes only such headers: torch_free, torch_free_headers")
  endif()
endfunction()

function(check_third_party file text header)
  foreach(library ${restricted})
    if(header MATCHES "${${library}_matches}" AND NOT file MATCHES "${${library}_allowed}")
      report(${file} "${text}" "${${library}_rule}")
    endif()
  endforeach()
  is_torch_free(${file} is_free)
  if(is_free AND header MATCHES "^(ATen|c10|torch)/")
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
  # See src/tensor/parallel_for.h.
  file(STRINGS ${ROOT}/${file} loops REGEX "at::parallel_for\\(")
  if(loops AND NOT file STREQUAL "src/tensor/parallel_for.cc")
    report(${file} "at::parallel_for(" "loops run by ParallelFor: at::parallel_for has one thread without OpenMP")
  endif()
  # Unpickling runs what the file says; only safetensors are read here.
  file(STRINGS ${ROOT}/${file} unsafe REGEX "torch::(load|jit|pickle)|pickle_load|[Uu]npickler")
  foreach(line IN LISTS unsafe)
    if(NOT line MATCHES "^[ \t]*//")
      report(${file} "${line}" "nothing is unpickled: adapters and checkpoints are untrusted")
    endif()
  endforeach()
endfunction()

# What the table permits and no file uses, and the headers it names that do not exist.
function(check_unused)
  get_cmake_property(variables VARIABLES)
  list(FILTER variables INCLUDE REGEX "^may_include_")
  set(found "")
  foreach(variable ${variables})
    string(REGEX REPLACE "^may_include_" "" row ${variable})
    foreach(entry ${${variable}})
      get_property(used GLOBAL PROPERTY "used ${row} ${entry}")
      if(NOT used)
        list(APPEND found "${row} may include ${entry}, but does not")
      endif()
    endforeach()
  endforeach()
  foreach(header ${torch_free_headers})
    if(NOT EXISTS ${ROOT}/${header})
      list(APPEND found "torch_free_headers has ${header}, which does not exist")
    endif()
  endforeach()
  list(LENGTH found count)
  if(count GREATER 0)
    list(JOIN found "\n  " found)
    message(FATAL_ERROR "remove from cmake/check_layers.cmake what nothing uses:\n  ${found}")
  endif()
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
if(NOT PARTIAL)
  check_unused()
endif()
message(STATUS "layers: ${count} files keep to the table")
