// Launches that begin while kernels before them on the stream still run: programmatic dependent
// launch. A kernel launched so calls WaitForKernelsBefore() before it reads or writes anything that
// kernels before it did, in some thread of every block, so that what has ended by then has ended
// for the kernels after it too. It calls LetNextKernelStart() first of all: as soon as all its
// blocks run, blocks of the next kernel come in where there is room, and so on down the stream.
// What is gained is the time of the launches, and that linears fetch their weights (few_rows.h)
// during whatever small kernels stand in front of them.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

namespace assay::engine::cuda {

// Everything that kernels before this one on the stream wrote is there when it returns. Nothing to
// wait for in a kernel that was launched the plain way.
__device__ inline void WaitForKernelsBefore() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// The kernel behind this one may be started. It does not look at this one's results before they are
// all there.
__device__ inline void LetNextKernelStart() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

// `cluster_size`: blocks of a thread block cluster along x; 1: no clusters.
template <typename... Parameters, typename... Arguments>
cudaError_t LaunchOverlapped(void (*kernel)(Parameters...), dim3 grid, int threads,
                             size_t shared_bytes, int cluster_size, cudaStream_t stream,
                             Arguments&&... arguments) {
  cudaLaunchAttribute attributes[3];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  // The same division of a multiprocessor's memory for all: it does not change while blocks run, so
  // that a block which needs more of it would have to wait.
  attributes[1].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attributes[1].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  attributes[2].id = cudaLaunchAttributeClusterDimension;
  attributes[2].val.clusterDim.x = static_cast<unsigned>(cluster_size);
  attributes[2].val.clusterDim.y = 1;
  attributes[2].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster_size > 1 ? 3 : 2;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace assay::engine::cuda
