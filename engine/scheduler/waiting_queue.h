// Sequences that wait for a lane. Those that were preempted come first, oldest start first; then
// the longest expected output, so that no long sequence is left to run alone at the end; equals in
// the order of submission. Not thread-safe.
#pragma once

#include <memory>
#include <set>
#include <tuple>

#include "engine/scheduler/sequence.h"

namespace assay::engine {

class WaitingQueue {
 public:
  using Item = std::unique_ptr<Sequence>;

 private:
  struct Before {
    bool operator()(const Item& a, const Item& b) const { return Rank(*a) < Rank(*b); }
    static std::tuple<bool, int64_t, int64_t> Rank(const Sequence& sequence) {
      if (sequence.start_time) return {false, sequence.start_order, 0};
      return {true, -sequence.request.expected_tokens, sequence.submit_order};
    }
  };
  using Items = std::set<Item, Before>;

 public:
  using const_iterator = Items::const_iterator;

  const_iterator begin() const { return items_.begin(); }
  const_iterator end() const { return items_.end(); }
  bool empty() const { return items_.empty(); }
  int size() const { return static_cast<int>(items_.size()); }

  void Push(Item sequence) { items_.insert(std::move(sequence)); }

  // Takes *position out; *position then is what followed.
  Item Take(const_iterator* position) {
    const const_iterator next = std::next(*position);
    Item sequence = std::move(items_.extract(*position).value());
    *position = next;
    return sequence;
  }

 private:
  Items items_;
};

}  // namespace assay::engine
