assay_executable(engine_bench
  SRCS ${CMAKE_CURRENT_LIST_DIR}/engine_bench.cc
  DEPS assay::engine_runtime assay::engine_kernels_cpu)
