assay_executable(store_bench
  SRCS ${CMAKE_CURRENT_LIST_DIR}/store_bench.cc
  DEPS assay::storage_stores)
