// Which blocks of the KV cache belong to whom: a free list with reference counts, and an index of
// prompt blocks by content. Knows numbers of blocks only, not where they lie, so it serves every
// backend.
//
// Prompt blocks are shared. A full block whose keys and values are in the cache may be published
// under (its predecessor's serial, its tokens); a later prompt that begins with the same tokens
// takes a reference instead of computing them again. Equality is by content, not by hash. Reuse
// changes no result: a token's keys and values depend on the tokens before it alone.
//
//   free ---Allocate--> used (references > 0) ---Release, last, unpublished--> free
//                         |        ^                        |
//                         |        +------MatchPrefix-------+ published: cached, refs 0
//                         +--Publish                        |
//                                   free <--Allocate, least recently used, when nothing is free
//
// Not thread-safe.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace assay::engine {

class BlockAllocator {
 public:
  // The serial of "no predecessor".
  static constexpr int64_t kNoPrefix = 0;

  BlockAllocator(int64_t num_blocks, int block_size);

  int block_size() const { return block_size_; }
  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  // Blocks that Allocate can hand out: free ones and cached ones that nobody references.
  int64_t num_available() const { return static_cast<int64_t>(free_.size() + cached_.size()); }
  int64_t num_used() const { return num_blocks() - num_available(); }

  // Blocks that hold `num_tokens` tokens.
  int64_t BlocksFor(int64_t num_tokens) const {
    return (num_tokens + block_size_ - 1) / block_size_;
  }

  // A block with one reference, or nothing when all are referenced.
  std::optional<int32_t> Allocate();

  void AddReference(int32_t block);
  void Release(int32_t block);

  struct PrefixMatch {
    std::vector<int32_t> blocks;  // no references taken
    int64_t serial = kNoPrefix;   // of the last of them
  };
  // The longest run of published blocks with which `tokens` begins.
  PrefixMatch MatchPrefix(std::span<const int32_t> tokens) const;

  // Makes a used block findable as the continuation of `prefix_serial`; `tokens` are its
  // block_size tokens. Returns the serial under which its successor is to be published, which is an
  // older block's when one with this content exists.
  int64_t Publish(int32_t block, int64_t prefix_serial, std::span<const int32_t> tokens);

 private:
  using Content = std::pair<int64_t, std::vector<int32_t>>;

  struct Block {
    int references = 0;
    int64_t serial = kNoPrefix;                // published when not kNoPrefix
    Content content;                           // of a published block: its key in published_
    std::list<int32_t>::iterator cached_at{};  // in cached_, when published and not referenced
  };

  const int block_size_;
  std::vector<Block> blocks_;
  std::vector<int32_t> free_;  // a stack: what was used last is warm in the processor's caches
  std::list<int32_t> cached_;  // least recently used first
  absl::flat_hash_map<Content, int32_t> published_;
  int64_t next_serial_ = kNoPrefix + 1;
};

}  // namespace assay::engine
