// An immutable map from byte strings to token ids: one flat table, so that a lookup touches one
// cache line of the table and one of the string. Encoding looks up every word of a text here.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace assay::engine {

class TokenIndex {
 public:
  TokenIndex() = default;

  // The strings outlive the index and are all different (the first of two equal ones wins).
  explicit TokenIndex(const std::vector<std::pair<std::string_view, int32_t>>& entries);

  std::optional<int32_t> Find(std::string_view key) const {
    if (slots_.empty()) return std::nullopt;
    const uint64_t hash = Hash(key);
    const auto tag = static_cast<uint32_t>(hash >> 32);
    for (size_t i = hash & mask_; slots_[i].data != nullptr; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.tag == tag && slot.num_bytes == key.size() &&
          std::memcmp(slot.data, key.data(), key.size()) == 0) {
        return slot.id;
      }
    }
    return std::nullopt;
  }

 private:
  struct Slot {
    const char* data = nullptr;
    uint32_t num_bytes = 0;
    uint32_t tag = 0;
    int32_t id = 0;
  };

  static uint64_t Mix(uint64_t a, uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }

  // Multiply-and-fold over eight bytes at a time; words are mostly shorter than that.
  static uint64_t Hash(std::string_view key) {
    constexpr uint64_t kOdd = 0x9E3779B97F4A7C15;
    uint64_t hash = key.size() * kOdd;
    const char* p = key.data();
    size_t left = key.size();
    for (; left > 8; left -= 8, p += 8) {
      uint64_t word;
      std::memcpy(&word, p, 8);
      hash = Mix(hash ^ word, kOdd);
    }
    uint64_t word = 0;
    if (left > 0) std::memcpy(&word, p, left);
    return Mix(hash ^ word, 0xD6E8FEB86659FD93);
  }

  std::vector<Slot> slots_;  // a power of two of them, at most half full
  size_t mask_ = 0;
};

}  // namespace assay::engine
