// Byte-pair encoding of one word.
//
// A word starts as its bytes' tokens. Again and again the neighbouring pair whose merge has the
// lowest rank (of equal ones the leftmost) becomes one token, until no pair has a merge. (Sennrich,
// Haddow, Birch 2016, as GPT-2 applies it to bytes.)
//
// Most words of a text are tokens themselves. Which tokens merge back into themselves is worked out
// once, at load; such a word is then one lookup. So there is no cache of words: nothing to bound,
// to lock or to share between threads, and a cold tokenizer is as fast as a warm one.
//
// Time is O(n) lookups for a word that is a token, O(n^2) steps for a short word, O(n log n) for a
// long one: text from outside cannot make it worse.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/tokenizer/token_index.h"

namespace assay::engine {

// Immutable once built; thread-safe.
class Bpe {
 public:
  struct Merge {
    int32_t left;
    int32_t right;
    int32_t result;
  };

  struct Options {
    // bytes of the tokens made of bytes, with their ids. The strings outlive the model.
    std::vector<std::pair<std::string_view, int32_t>> tokens;
    std::vector<Merge> merges;  // by rank; no pair twice
    // A word that is a token is that token, whether merges lead there or not (Llama 3).
    bool ignore_merges = false;
    // What a byte without a token becomes; absent: nothing. `fuse_unknown`: one for a run of them.
    std::optional<int32_t> unknown_id;
    bool fuse_unknown = false;
  };

  explicit Bpe(const Options& options);

  // Appends the ids of `word`.
  void Encode(std::string_view word, std::vector<int32_t>* ids) const;

 private:
  static constexpr uint32_t kNoMerge = UINT32_MAX;

  // The rank of the merge of a pair, or kNoMerge.
  uint32_t RankOf(int32_t left, int32_t right) const {
    const uint64_t key = PairKey(left, right);
    for (size_t i = PairHash(key) & pair_mask_; pairs_[i].rank != kNoMerge;
         i = (i + 1) & pair_mask_) {
      if (pairs_[i].key == key) return pairs_[i].rank;
    }
    return kNoMerge;
  }

  static uint64_t PairKey(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) |
           static_cast<uint32_t>(right);
  }
  static size_t PairHash(uint64_t key) {
    key *= 0x9E3779B97F4A7C15;
    return static_cast<size_t>(key ^ (key >> 32));
  }

  void StartTokens(std::string_view word, std::vector<int32_t>* ids) const;
  // Replace the ids from `begin` to the end of `ids` by what merging makes of them.
  void MergeShort(size_t begin, std::vector<int32_t>* ids) const;
  void MergeLong(size_t begin, std::vector<int32_t>* ids) const;

  struct Pair {
    uint64_t key = 0;
    uint32_t rank = kNoMerge;
  };

  std::array<int32_t, 256> id_of_byte_;  // -1: none
  std::optional<int32_t> unknown_id_;
  bool fuse_unknown_;
  std::vector<Pair> pairs_;  // open addressing, at most half full
  size_t pair_mask_ = 0;
  std::vector<int32_t> result_of_rank_;
  TokenIndex whole_words_;
};

}  // namespace assay::engine
