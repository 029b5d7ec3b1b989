# What `cmake --install build/release --prefix PREFIX --strip` lays out:
#
#   bin/hotlora-server, bin/hotlora
#   lib/hotlora/libhotlora_cuda.so   with preset cuda
#   lib/hotlora/libtorch/            LibTorch's shared libraries as the wheels have them, with their licences
#   lib/systemd/system/hotlora.service
#   share/hotlora/                   proto/, hotlora.protoset, service_config.json
#   share/doc/hotlora/               LICENSE, CHANGELOG.md, README.md, docs/
#
# Components: runtime (programs and libraries) and extras (all else).
include(GNUInstallDirs)
set(installed_libraries ${CMAKE_INSTALL_LIBDIR}/hotlora)
set(installed_libtorch ${installed_libraries}/libtorch)
set(installed_share ${CMAKE_INSTALL_DATADIR}/hotlora)

# A run path of the program is not searched for what its libraries need: LibTorch's have one of their own.
set(installed_run_path "$ORIGIN/../${installed_libtorch}/torch/lib;$ORIGIN/../${installed_libraries}")

if(TARGET hotlora-server)
  set_target_properties(hotlora-server PROPERTIES INSTALL_RPATH "${installed_run_path}")
  install(TARGETS hotlora-server RUNTIME COMPONENT runtime)
  install(DIRECTORY ${HOTLORA_LIBTORCH}/ DESTINATION ${installed_libtorch} COMPONENT runtime
    FILES_MATCHING PATTERN "*.so" PATTERN "*.so.*" PATTERN "*.dist-info/licenses/*"
    PATTERN include EXCLUDE PATTERN bin EXCLUDE PATTERN nvvm EXCLUDE)
endif()
if(TARGET hotlora_cuda)
  set_target_properties(hotlora_cuda PROPERTIES INSTALL_RPATH
    "$ORIGIN/libtorch/torch/lib;$ORIGIN/libtorch/nvidia/cu13/lib")
  install(TARGETS hotlora_cuda LIBRARY DESTINATION ${installed_libraries} COMPONENT runtime)
endif()
install(TARGETS hotlora RUNTIME COMPONENT runtime)

install(DIRECTORY ${CMAKE_SOURCE_DIR}/proto/ DESTINATION ${installed_share}/proto COMPONENT extras
  FILES_MATCHING PATTERN "*.proto" PATTERN released EXCLUDE)
install(FILES ${CMAKE_BINARY_DIR}/hotlora.protoset ${CMAKE_SOURCE_DIR}/deploy/service_config.json
  DESTINATION ${installed_share} COMPONENT extras)
install(FILES ${CMAKE_SOURCE_DIR}/deploy/systemd/hotlora.service DESTINATION lib/systemd/system COMPONENT extras)
install(FILES LICENSE CHANGELOG.md README.md SECURITY.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT extras)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT extras)
