#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <queue>

namespace assay::engine {
namespace {

// Up to here a scan over the pairs for the best one is faster than a heap.
constexpr size_t kMaxShortWord = 48;

}  // namespace

Bpe::Bpe(const Options& options)
    : unknown_id_(options.unknown_id), fuse_unknown_(options.fuse_unknown) {
  id_of_byte_.fill(-1);
  for (const auto& [bytes, id] : options.tokens) {
    if (bytes.size() == 1) id_of_byte_[static_cast<uint8_t>(bytes[0])] = id;
  }

  size_t num_slots = 2;
  while (num_slots < 2 * options.merges.size()) num_slots *= 2;
  pairs_.resize(num_slots);
  pair_mask_ = num_slots - 1;
  result_of_rank_.reserve(options.merges.size());
  for (const Merge& merge : options.merges) {
    const uint64_t key = PairKey(merge.left, merge.right);
    size_t i = PairHash(key) & pair_mask_;
    while (pairs_[i].rank != kNoMerge) i = (i + 1) & pair_mask_;
    pairs_[i] = {key, static_cast<uint32_t>(result_of_rank_.size())};
    result_of_rank_.push_back(merge.result);
  }

  if (options.ignore_merges) {
    whole_words_ = TokenIndex(options.tokens);
    return;
  }
  std::vector<std::pair<std::string_view, int32_t>> whole;
  std::vector<int32_t> ids;
  for (const auto& [bytes, id] : options.tokens) {
    ids.clear();
    Encode(bytes, &ids);
    if (ids.size() == 1 && ids[0] == id) whole.emplace_back(bytes, id);
  }
  whole_words_ = TokenIndex(whole);
}

void Bpe::Encode(std::string_view word, std::vector<int32_t>* ids) const {
  if (const std::optional<int32_t> id = whole_words_.Find(word)) {
    ids->push_back(*id);
    return;
  }
  const size_t begin = ids->size();
  StartTokens(word, ids);
  if (ids->size() - begin <= kMaxShortWord) {
    MergeShort(begin, ids);
  } else {
    MergeLong(begin, ids);
  }
}

void Bpe::StartTokens(std::string_view word, std::vector<int32_t>* ids) const {
  bool previous_is_unknown = false;
  for (const char byte : word) {
    const int32_t id = id_of_byte_[static_cast<uint8_t>(byte)];
    if (id >= 0) {
      ids->push_back(id);
    } else if (unknown_id_.has_value() && !(fuse_unknown_ && previous_is_unknown)) {
      ids->push_back(*unknown_id_);
    }
    previous_is_unknown = id < 0;
  }
}

void Bpe::MergeShort(size_t begin, std::vector<int32_t>* ids) const {
  int32_t* const tokens = ids->data() + begin;
  size_t num_tokens = ids->size() - begin;
  if (num_tokens < 2) return;
  std::array<uint32_t, kMaxShortWord> ranks;  // of the pair that begins at a token
  for (size_t i = 0; i + 1 < num_tokens; ++i) ranks[i] = RankOf(tokens[i], tokens[i + 1]);
  while (num_tokens > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < num_tokens; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNoMerge) break;
    tokens[best] = result_of_rank_[ranks[best]];
    std::copy(tokens + best + 2, tokens + num_tokens, tokens + best + 1);
    std::copy(ranks.begin() + best + 1, ranks.begin() + num_tokens - 1, ranks.begin() + best);
    --num_tokens;
    if (best > 0) ranks[best - 1] = RankOf(tokens[best - 1], tokens[best]);
    if (best + 1 < num_tokens) ranks[best] = RankOf(tokens[best], tokens[best + 1]);
  }
  ids->resize(begin + num_tokens);
}

void Bpe::MergeLong(size_t begin, std::vector<int32_t>* ids) const {
  constexpr uint32_t kEnd = UINT32_MAX;
  struct Symbol {
    int32_t id;  // -1: merged into the one before it
    uint32_t previous;
    uint32_t next;
  };
  struct Candidate {
    uint32_t rank;
    uint32_t position;
    int32_t left;
    int32_t right;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto num_symbols = static_cast<uint32_t>(ids->size() - begin);
  std::vector<Symbol> symbols(num_symbols);
  for (uint32_t i = 0; i < num_symbols; ++i) {
    symbols[i] = {(*ids)[begin + i], i == 0 ? kEnd : i - 1, i + 1 == num_symbols ? kEnd : i + 1};
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](uint32_t position) {
    if (position == kEnd || symbols[position].next == kEnd) return;
    const int32_t left = symbols[position].id;
    const int32_t right = symbols[symbols[position].next].id;
    const uint32_t rank = RankOf(left, right);
    if (rank != kNoMerge) queue.push({rank, position, left, right});
  };
  for (uint32_t i = 0; i + 1 < num_symbols; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.position];
    // Entries of pairs that are gone stay in the queue; ids only ever grow longer, so a pair that
    // looks the same is the same.
    if (left.id != best.left || left.next == kEnd || symbols[left.next].id != best.right) continue;
    Symbol& right = symbols[left.next];
    left.id = result_of_rank_[best.rank];
    right.id = -1;
    left.next = right.next;
    if (left.next != kEnd) symbols[left.next].previous = best.position;
    consider(left.previous);
    consider(best.position);
  }
  ids->resize(begin);
  for (uint32_t i = 0; i != kEnd && i < num_symbols; i = symbols[i].next) {
    ids->push_back(symbols[i].id);
  }
}

}  // namespace assay::engine
