#define ASSAY_KERNEL_TABLE kGenericKernels
#define ASSAY_KERNEL_NAME "generic"
#include "engine/kernels/cpu/kernel_bodies.inc"
