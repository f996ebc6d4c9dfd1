// Launches that begin while the kernel before them on the stream still ends: programmatic dependent
// launch. A kernel launched so calls WaitForKernelsBefore() before it reads or writes anything that
// kernels before it did; what is gained is the time of the launch, about a microsecond, of which a
// decode step of 28 layers has hundreds.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

namespace assay::engine::cuda {

// Everything that kernels before this one on the stream wrote is there when it returns. Nothing to
// wait for in a kernel that was launched the plain way.
__device__ inline void WaitForKernelsBefore() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// `cluster_size`: blocks of a thread block cluster along x; 1: no clusters.
template <typename... Parameters, typename... Arguments>
cudaError_t LaunchOverlapped(void (*kernel)(Parameters...), dim3 grid, int threads,
                             size_t shared_bytes, int cluster_size, cudaStream_t stream,
                             Arguments&&... arguments) {
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(cluster_size);
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster_size > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace assay::engine::cuda
