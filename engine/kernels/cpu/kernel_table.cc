#include "engine/kernels/cpu/kernel_table.h"

#include <array>

namespace assay::engine::cpu {

#if defined(__x86_64__)
extern const KernelTable kAvx512Kernels;
extern const KernelTable kAvx2Kernels;
#endif
extern const KernelTable kGenericKernels;

namespace {

std::array<const KernelTable*, 4> FindAvailable() {
  std::array<const KernelTable*, 4> found = {};
  int count = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_fma && __builtin_cpu_supports("avx512f")) found[count++] = &kAvx512Kernels;
  if (has_fma) found[count++] = &kAvx2Kernels;
#endif
  found[count++] = &kGenericKernels;
  return found;
}

}  // namespace

const KernelTable* const* AvailableKernels() {
  static const std::array<const KernelTable*, 4> available = FindAvailable();
  return available.data();
}

const KernelTable& Kernels() {
  static const KernelTable& best = *AvailableKernels()[0];
  return best;
}

}  // namespace assay::engine::cpu
