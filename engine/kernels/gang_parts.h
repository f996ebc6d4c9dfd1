// What each rank of a tensor-parallel gang has contributed, as a kernel (or a loop) finds it. Made
// by engine/parallel; plain numbers and pointers, so that every backend can take it.
#pragma once

#include <cstdint>

namespace assay::engine {

inline constexpr int kMaxRanks = 8;

// How a kernel waits until its counterparts on the other GPUs have been started, and with that all
// that stands before them on their streams is done. Each block of a kernel meets the blocks of the
// same number: it raises its epoch, writes it into the others' memory, and waits until the others
// have written theirs. Nothing is reset, so a captured graph can be launched any number of times.
struct PeerSync {
  static constexpr int kMaxBlocks = 256;

  // Most blocks of a kernel that waits: all of them must be running at once on every GPU of the
  // gang. 0: everything is there already.
  int num_blocks = 0;
  // Another rank runs on this GPU too: what waits must leave it room.
  bool shares_device = false;
  int rank = 0;
  uint32_t* epochs = nullptr;         // [kMaxBlocks], this rank's own
  const uint32_t* arrived = nullptr;  // [ranks, kMaxBlocks], written by the others
  uint32_t* arrived_at[kMaxRanks];    // [kMaxBlocks] of this rank in each other's `arrived`
  const uint32_t* aborted = nullptr;  // host memory: not 0 when nobody shall wait any more
};

// Where ranks write small parts into each other's memory, so that who needs one polls its own: a
// single hop, where a barrier and a read are three. A part needs no flag and no number: memory that
// nobody has written holds kNotArrived in every word, and who has read a word puts that back. So an
// inbox can be used again after an exchange through another one, as a window.
struct PeerInbox {
  // A NaN of float32, and two of bf16, that no arithmetic makes.
  static constexpr uint32_t kNotArrived = 0xFFFFFFFF;

  int64_t bytes = 0;           // of a part, at most; 0: no inbox
  void* from[kMaxRanks] = {};  // this rank's memory, by the rank that writes it
  void* at[kMaxRanks] = {};    // the others' memory for what this rank writes
};

struct GangParts {
  int num_ranks = 0;
  const void* parts[kMaxRanks] = {};  // by rank; readable once the kernel has waited for its peers
  PeerSync sync = {};
  PeerInbox inbox = {};  // of the same window
};

}  // namespace assay::engine
