# How our own code is compiled: C++20, warnings as errors, one sanitizer setting for the whole tree.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
# -g1 keeps file and line in stack traces at a fifth of the object size of -g.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1 -fno-omit-frame-pointer")

find_program(ASSAY_CCACHE ccache)
if(ASSAY_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${ASSAY_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${ASSAY_CCACHE})
endif()
find_program(ASSAY_MOLD mold)
if(ASSAY_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_library(assay_warnings INTERFACE)
target_compile_options(assay_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion
                             -Wno-missing-field-initializers -Werror>)
# nvcc's own stubs do not survive -Wconversion; its warnings and the host compiler's are errors.
# constexpr functions (Philox, masses of tokens, page layouts) are one source for both sides.
target_compile_options(assay_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings --expt-relaxed-constexpr
                             -Xcompiler=-Wall,-Wextra,-Werror>)

if(ASSAY_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(ASSAY_SANITIZER)
  add_compile_options(-fsanitize=${ASSAY_SANITIZER} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${ASSAY_SANITIZER})
  # g++ 12 reports false positives of these under the sanitizers' instrumentation.
  target_compile_options(assay_warnings INTERFACE
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-maybe-uninitialized
                                                            -Wno-stringop-overflow>)
  if(ASSAY_SANITIZER STREQUAL "thread")
    # spdlog and gRPC fence with atomic_thread_fence, which ThreadSanitizer does not model.
    target_compile_options(assay_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-tsan>)
  endif()
endif()
