// The device's half of gang_parts.h: a barrier between the blocks of the same number on all GPUs,
// and parts that are pushed into the peers' inboxes.
//
// The barrier is one write into each peer's memory and a poll of the own: the time of one hop over
// NVLink. The write is a release and the poll an acquire, at the scope of the system, so what the
// peers' kernels wrote before is visible behind the barrier.
//
// A pushed part is data and flag in one: words are polled until they are there. Accesses of 16
// bytes may arrive in parts, but no word does.
#pragma once

#include <cstdint>

#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/gang_parts.h"

namespace assay::engine::cuda {

inline constexpr uint32_t kPollsPerLookAtAbort = 1024;  // a look goes to the host's memory

__device__ inline void StoreRelease(uint32_t value, uint32_t* p) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}

__device__ inline uint32_t LoadAcquire(const uint32_t* p) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
  return value;
}

// LetNextKernelStart() of a kernel that waits for its peers. The kernels behind it on the stream,
// one after the other, would take all the room there is and keep it while it waits: where the peer
// is on the same GPU, that is the room of what it waits for.
__device__ inline void LetNextKernelStart(const PeerSync& sync) {
  if (!sync.shares_device) LetNextKernelStart();
}

// Called by all threads of a block, once per kernel, behind WaitForKernelsBefore(). The grid has at
// most sync.num_blocks blocks.
__device__ inline void WaitForPeers(const GangParts& gang) {
  const PeerSync& sync = gang.sync;
  if (sync.num_blocks == 0) return;
  const int block = static_cast<int>(blockIdx.x);
  const int peer = static_cast<int>(threadIdx.x);
  uint32_t epoch = 0;
  if (peer < gang.num_ranks) {
    epoch = sync.epochs[block] + 1;
    if (peer != sync.rank) {
      StoreRelease(epoch, sync.arrived_at[peer] + block);
      const uint32_t* arrived = sync.arrived + peer * PeerSync::kMaxBlocks + block;
      uint32_t polls = 0;
      // Epochs wrap around; a peer is at most one ahead.
      while (static_cast<int32_t>(LoadAcquire(arrived) - epoch) < 0) {
        if (++polls % kPollsPerLookAtAbort == 0 && LoadAcquire(sync.aborted) != 0) break;
      }
    }
  }
  __syncthreads();
  if (peer == 0) sync.epochs[block] = epoch;
}

// What stands for kNotArrived itself, should it ever be computed: another NaN.
__device__ inline uint4 Sendable(uint4 words) {
  const auto replace = [](uint32_t& word) {
    if (word == PeerInbox::kNotArrived) word = 0x7FFF7FFF;
  };
  replace(words.x);
  replace(words.y);
  replace(words.z);
  replace(words.w);
  return words;
}

__device__ inline void PushWords(const uint4& words, void* p) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(words.x),
               "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
}

__device__ inline uint4 PollWords(const void* p) {
  uint4 words;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(p)
               : "memory");
  return words;
}

__device__ inline bool HaveArrived(const uint4& words) {
  return words.x != PeerInbox::kNotArrived && words.y != PeerInbox::kNotArrived &&
         words.z != PeerInbox::kNotArrived && words.w != PeerInbox::kNotArrived;
}

// Behind a first PollWords(p): waits until all words are there, and leaves the inbox as it was.
// After an abort they mean nothing.
__device__ inline void ReceiveWords(const PeerSync& sync, void* p, uint4* words) {
  uint32_t polls = 0;
  while (!HaveArrived(*words)) {
    *words = PollWords(p);
    if (++polls % kPollsPerLookAtAbort == 0 && LoadAcquire(sync.aborted) != 0) break;
  }
  constexpr uint32_t kNothing = PeerInbox::kNotArrived;
  *static_cast<uint4*>(p) = make_uint4(kNothing, kNothing, kNothing, kNothing);
}

}  // namespace assay::engine::cuda
