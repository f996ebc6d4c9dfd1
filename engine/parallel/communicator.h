// How the ranks of a gang see each other's partial results.
//
// Every rank has windows: memory that the others can read. It writes its part into one, shares it,
// and what it launches next finds all ranks' parts of that window. A communicator moves bytes and
// adds nothing up: sums are taken by whoever reads the parts, in the order of the ranks, so that a
// result depends neither on the way the bytes went nor on the size of the message.
//
// All ranks share the same windows in the same order. A window may be written and shared again
// after another one has been shared: by then every rank has read it. So whoever sums again and
// again uses two windows in turn.
//
// One thread per rank; only Abort may be called from any.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/kernels/gang_parts.h"

struct CUstream_st;  // cudaStream_t, without the toolkit

namespace assay::engine {

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // This rank's memory of a window, of the size that the gang was made with.
  virtual std::byte* window(int index) const = 0;

  // The first `bytes` of everybody's window, for what is launched next on the stream. Can be
  // captured in a graph.
  virtual absl::StatusOr<GangParts> Share(int index, int64_t bytes, CUstream_st* stream) = 0;

  // What has gone wrong behind the back of Share; OK while nothing has.
  virtual absl::Status Health() = 0;

  // Ends all waits of all ranks, now and later, with parts that mean nothing: for a gang of which a
  // rank has failed or hangs.
  virtual void Abort() = 0;
};

using Communicators = std::vector<std::unique_ptr<Communicator>>;  // by rank

}  // namespace assay::engine
