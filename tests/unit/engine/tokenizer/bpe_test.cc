#include "engine/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace assay::engine {
namespace {

// Bytes a, b, c are 0, 1, 2; then ab, abc, ca, bc, aa, aaaa. Ranks are the order of the merges.
Bpe::Options Toy() {
  Bpe::Options options;
  options.tokens = {{"a", 0},  {"b", 1},  {"c", 2},  {"ab", 3},  {"abc", 4},
                    {"ca", 5}, {"bc", 6}, {"aa", 7}, {"aaaa", 8}};
  options.merges = {{0, 1, 3}, {3, 2, 4}, {2, 0, 5}, {1, 2, 6}, {0, 0, 7}, {7, 7, 8}};
  return options;
}

std::vector<int32_t> Encode(const Bpe& bpe, std::string_view word) {
  std::vector<int32_t> ids;
  bpe.Encode(word, &ids);
  return ids;
}

TEST(BpeTest, LowestRankGoesFirstAndLeftmostOfEquals) {
  const Bpe bpe(Toy());
  EXPECT_EQ(Encode(bpe, "abc"), (std::vector<int32_t>{4}));
  EXPECT_EQ(Encode(bpe, "bca"), (std::vector<int32_t>{1, 5}));  // ca before bc
  EXPECT_EQ(Encode(bpe, "aaa"), (std::vector<int32_t>{7, 0}));
  EXPECT_EQ(Encode(bpe, ""), (std::vector<int32_t>{}));
}

// The heap of long words and the scan of short ones must make the same merges.
TEST(BpeTest, LongWordsMergeLikeShortOnes) {
  const Bpe bpe(Toy());
  // By definition: merge the best pair, again and again.
  const auto slowly = [](std::string_view word) {
    const Bpe::Options toy = Toy();
    std::vector<int32_t> ids;
    for (const char c : word) ids.push_back(c - 'a');
    while (true) {
      size_t best = SIZE_MAX, best_rank = SIZE_MAX;
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        for (size_t rank = 0; rank < std::min(best_rank, toy.merges.size()); ++rank) {
          if (toy.merges[rank].left == ids[i] && toy.merges[rank].right == ids[i + 1]) {
            best = i;
            best_rank = rank;
          }
        }
      }
      if (best == SIZE_MAX) return ids;
      ids[best] = toy.merges[best_rank].result;
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
  };
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string word;
    for (size_t n = random() % 120; n-- > 0;) word += static_cast<char>('a' + random() % 3);
    ASSERT_EQ(Encode(bpe, word), slowly(word)) << word;
  }
}

TEST(BpeTest, AWordOfAMillionBytesEnds) {
  const Bpe bpe(Toy());
  EXPECT_EQ(Encode(bpe, std::string(1 << 20, 'a')).size(), size_t{1} << 18);
}

TEST(BpeTest, IgnoreMergesTakesAWordThatIsAToken) {
  Bpe::Options options = Toy();
  options.merges.clear();
  EXPECT_EQ(Encode(Bpe(options), "abc"), (std::vector<int32_t>{0, 1, 2}));
  options.ignore_merges = true;
  EXPECT_EQ(Encode(Bpe(options), "abc"), (std::vector<int32_t>{4}));
  EXPECT_EQ(Encode(Bpe(options), "abca"), (std::vector<int32_t>{0, 1, 2, 0}));
}

TEST(BpeTest, ByteWithoutATokenIsUnknownOrNothing) {
  Bpe::Options options = Toy();
  EXPECT_EQ(Encode(Bpe(options), "axxb"), (std::vector<int32_t>{3}));
  options.unknown_id = 9;
  EXPECT_EQ(Encode(Bpe(options), "axxb"), (std::vector<int32_t>{0, 9, 9, 1}));
  options.fuse_unknown = true;
  EXPECT_EQ(Encode(Bpe(options), "axxbx"), (std::vector<int32_t>{0, 9, 1, 9}));
}

}  // namespace
}  // namespace assay::engine
