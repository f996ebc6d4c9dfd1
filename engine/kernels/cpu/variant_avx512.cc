#define ASSAY_KERNEL_TABLE kAvx512Kernels
#define ASSAY_KERNEL_NAME "avx512"
#include "engine/kernels/cpu/kernel_bodies.inc"
