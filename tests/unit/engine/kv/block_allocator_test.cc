#include "engine/kv/block_allocator.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace assay::engine {
namespace {

constexpr int64_t kRoot = BlockAllocator::kNoPrefix;

// Blocks of four tokens.
std::vector<int32_t> Tokens(int first) { return {first, first + 1, first + 2, first + 3}; }

std::vector<int32_t> Concat(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(BlockAllocatorTest, HandsOutEveryBlockOnceAndThenNone) {
  BlockAllocator blocks(5, 4);
  std::set<int32_t> seen;
  for (int i = 0; i < 5; ++i) seen.insert(blocks.Allocate().value());
  EXPECT_EQ(seen.size(), 5u);
  EXPECT_EQ(blocks.Allocate(), std::nullopt);
  EXPECT_EQ(blocks.num_used(), 5);
  blocks.Release(3);
  EXPECT_EQ(blocks.Allocate(), 3);
}

TEST(BlockAllocatorTest, APublishedPromptIsFoundByContentAndOnlyInWholeBlocks) {
  BlockAllocator blocks(5, 4);
  const int32_t a = *blocks.Allocate(), b = *blocks.Allocate();
  const int64_t serial = blocks.Publish(a, kRoot, Tokens(10));
  blocks.Publish(b, serial, Tokens(20));

  EXPECT_EQ(blocks.MatchPrefix(Concat(Tokens(10), Tokens(20))).blocks,
            (std::vector<int32_t>{a, b}));
  EXPECT_EQ(blocks.MatchPrefix(Concat(Tokens(10), {20, 21, 22})).blocks, (std::vector<int32_t>{a}));
  EXPECT_EQ(blocks.MatchPrefix(Concat(Tokens(10), Tokens(30))).blocks, (std::vector<int32_t>{a}));
  // The same tokens in another place are another thing.
  EXPECT_TRUE(blocks.MatchPrefix(Tokens(20)).blocks.empty());
}

TEST(BlockAllocatorTest, AReleasedPromptStaysFindableUntilItsBlockIsNeeded) {
  BlockAllocator blocks(2, 4);
  const int32_t a = *blocks.Allocate();
  blocks.Publish(a, kRoot, Tokens(10));
  blocks.Release(a);
  EXPECT_EQ(blocks.num_available(), 2);
  EXPECT_EQ(blocks.MatchPrefix(Tokens(10)).blocks, (std::vector<int32_t>{a}));
  EXPECT_NE(*blocks.Allocate(), a) << "a free block goes first";
  EXPECT_EQ(*blocks.Allocate(), a);
  EXPECT_TRUE(blocks.MatchPrefix(Tokens(10)).blocks.empty());
}

TEST(BlockAllocatorTest, TheLeastRecentlyReleasedPromptIsGivenUpFirst) {
  BlockAllocator blocks(2, 4);
  const int32_t a = *blocks.Allocate(), b = *blocks.Allocate();
  blocks.Publish(a, kRoot, Tokens(10));
  blocks.Publish(b, kRoot, Tokens(20));
  blocks.Release(a);
  blocks.Release(b);
  blocks.AddReference(a);
  blocks.Release(a);
  EXPECT_EQ(*blocks.Allocate(), b);
}

TEST(BlockAllocatorTest, ASharedBlockIsFreeWhenItsLastUserReleasesIt) {
  BlockAllocator blocks(1, 4);
  const int32_t a = *blocks.Allocate();
  blocks.Publish(a, kRoot, Tokens(10));
  blocks.AddReference(a);
  blocks.Release(a);
  EXPECT_EQ(blocks.Allocate(), std::nullopt);
  blocks.Release(a);
  EXPECT_EQ(blocks.Allocate(), a);
}

TEST(BlockAllocatorTest, EqualContentIsPublishedOnceAndItsSuccessorsMeet) {
  BlockAllocator blocks(4, 4);
  const int32_t a = *blocks.Allocate(), twin = *blocks.Allocate(), b = *blocks.Allocate();
  const int64_t serial = blocks.Publish(a, kRoot, Tokens(10));
  EXPECT_EQ(blocks.Publish(twin, kRoot, Tokens(10)), serial);
  blocks.Publish(b, serial, Tokens(20));
  EXPECT_EQ(blocks.MatchPrefix(Concat(Tokens(10), Tokens(20))).blocks,
            (std::vector<int32_t>{a, b}));
  // The twin was not published, so it is simply free again.
  blocks.Release(twin);
  EXPECT_EQ(blocks.Allocate(), twin);
}

TEST(BlockAllocatorDeathTest, ReleasingTwiceIsABug) {
  BlockAllocator blocks(1, 4);
  blocks.Release(*blocks.Allocate());
  EXPECT_DEATH(blocks.Release(0), "released more often");
}

}  // namespace
}  // namespace assay::engine
