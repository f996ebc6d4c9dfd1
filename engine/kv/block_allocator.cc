#include "engine/kv/block_allocator.h"

#include "base/status.h"

namespace assay::engine {

BlockAllocator::BlockAllocator(int64_t num_blocks, int block_size)
    : block_size_(block_size), blocks_(num_blocks) {
  ASSAY_CHECK(num_blocks > 0 && block_size > 0, "num_blocks={} block_size={}", num_blocks,
              block_size);
  for (int64_t block = num_blocks - 1; block >= 0; --block) {
    free_.push_back(static_cast<int32_t>(block));
  }
}

std::optional<int32_t> BlockAllocator::Allocate() {
  int32_t block;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else if (!cached_.empty()) {
    block = cached_.front();
    cached_.pop_front();
    published_.erase(blocks_[block].content);
    blocks_[block].serial = kNoPrefix;
    blocks_[block].content.second.clear();
  } else {
    return std::nullopt;
  }
  blocks_[block].references = 1;
  return block;
}

void BlockAllocator::AddReference(int32_t block) {
  Block& entry = blocks_[block];
  if (entry.references++ > 0) return;
  ASSAY_CHECK(entry.serial != kNoPrefix, "block {} is free", block);
  cached_.erase(entry.cached_at);
}

void BlockAllocator::Release(int32_t block) {
  Block& entry = blocks_[block];
  ASSAY_CHECK(entry.references > 0, "block {} released more often than referenced", block);
  if (--entry.references > 0) return;
  if (entry.serial == kNoPrefix) {
    free_.push_back(block);
  } else {
    entry.cached_at = cached_.insert(cached_.end(), block);
  }
}

BlockAllocator::PrefixMatch BlockAllocator::MatchPrefix(std::span<const int32_t> tokens) const {
  PrefixMatch match;
  Content content;
  for (size_t begin = 0; begin + block_size_ <= tokens.size(); begin += block_size_) {
    content.first = match.serial;
    content.second.assign(tokens.begin() + begin, tokens.begin() + begin + block_size_);
    const auto found = published_.find(content);
    if (found == published_.end()) break;
    match.blocks.push_back(found->second);
    match.serial = blocks_[found->second].serial;
  }
  return match;
}

int64_t BlockAllocator::Publish(int32_t block, int64_t prefix_serial,
                                std::span<const int32_t> tokens) {
  Block& entry = blocks_[block];
  ASSAY_CHECK(entry.references > 0 && static_cast<int>(tokens.size()) == block_size_,
              "block {} with {} references and {} tokens", block, entry.references, tokens.size());
  Content content(prefix_serial, std::vector<int32_t>(tokens.begin(), tokens.end()));
  const auto [found, inserted] = published_.try_emplace(content, block);
  if (!inserted) return blocks_[found->second].serial;
  ASSAY_CHECK(entry.serial == kNoPrefix, "block {} is published already", block);
  entry.serial = next_serial_++;
  entry.content = std::move(content);
  return entry.serial;
}

}  // namespace assay::engine
