#define ASSAY_KERNEL_TABLE kAvx2Kernels
#define ASSAY_KERNEL_NAME "avx2"
#include "engine/kernels/cpu/kernel_bodies.inc"
