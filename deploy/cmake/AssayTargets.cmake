# One target per folder: folder coordinator/leases is the target assay_coordinator_leases, written
# assay::coordinator_leases by whoever uses it.

# assay_library(name SRCS ... DEPS ...): a static library; header-only when SRCS is empty.
function(assay_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(assay_${name} STATIC ${ARG_SRCS})
    target_include_directories(assay_${name} PUBLIC ${PROJECT_SOURCE_DIR})
    target_link_libraries(assay_${name} PUBLIC ${ARG_DEPS} PRIVATE assay_warnings)
  else()
    add_library(assay_${name} INTERFACE)
    target_include_directories(assay_${name} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(assay_${name} INTERFACE ${ARG_DEPS})
  endif()
  add_library(assay::${name} ALIAS assay_${name})
endfunction()

# assay_executable(name SRCS ... DEPS ...): a program, put into the build's bin/.
function(assay_executable name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} assay_warnings)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  # Installed, it looks for libraries beside itself (deploy/pack.sh puts them there) and for the CUDA
  # Toolkit's where that lives. A DT_RPATH, for it holds for the libraries' own libraries too.
  set_target_properties(${name} PROPERTIES
    INSTALL_RPATH "$ORIGIN/../lib;/usr/local/cuda/lib64;/usr/local/cuda/lib")
  target_link_options(${name} PRIVATE -Wl,--disable-new-dtags)
endfunction()

# assay_test(name SRCS ... DEPS ... [LABEL unit|integration|cuda|multi_gpu] [TIMEOUT seconds]):
# a GoogleTest program, one ctest entry. Tests see ASSAY_SOURCE_DIR and ASSAY_BIN_DIR.
function(assay_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SRCS;DEPS" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(ASSAY_SANITIZER)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 10")  # the engine is about that much slower
  endif()
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} assay::testing GTest::gmock GTest::gtest_main
                                        assay_warnings)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests/bin)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
endfunction()
