// The wire in memory. Every message may be lost, late, early or doubled; links break.
//
// A link is a worker's (or a person's) way to the coordinator. Streams keep their order unless the
// network is rude; unary calls never promise any. A message that arrives twice may do so while the
// first is being handled: whoever receives it puts it into a batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "tests/simulation/random.h"
#include "tests/simulation/virtual_time.h"

namespace assay::simulation {

struct NetworkCounts {
  int64_t sent = 0;
  int64_t dropped = 0;
  int64_t delayed = 0;
  int64_t duplicated = 0;
  int64_t replayed = 0;  // hours later
  int64_t partitions = 0;
};

class Network {
 public:
  struct Weather {
    double drop = 0;
    double delay = 0;  // by minutes
    double duplicate = 0;
    double replay = 0;  // a copy hours later
    bool rude = false;  // streams lose their order
  };

  Network(EventQueue* events, uint64_t seed) : events_(events), random_(seed) {}

  void SetWeather(const Weather& weather) { weather_ = weather; }
  void Partition(const std::string& link, absl::Duration length) {
    ++counts_.partitions;
    Instant& until = cut_until_[link];
    until = std::max(until, events_->now() + length);
  }
  bool IsCut(const std::string& link) const {
    const auto it = cut_until_.find(link);
    return it != cut_until_.end() && it->second > events_->now();
  }
  void Heal() { cut_until_.clear(); }

  // Delivers `message` on the link, or not. `stream`: names what keeps its order; empty for unary
  // calls.
  void Send(const std::string& link, const std::string& stream, std::function<void()> message) {
    ++counts_.sent;
    if (IsCut(link) || random_.Chance(weather_.drop)) {
      ++counts_.dropped;
      return;
    }
    if (random_.Chance(weather_.duplicate)) {
      ++counts_.duplicated;
      Deliver(link, stream, Latency(), message);
    }
    if (stream.empty() && random_.Chance(weather_.replay)) {
      ++counts_.replayed;
      Deliver(link, stream, random_.Between(absl::Minutes(20), absl::Hours(8)), message);
    }
    Deliver(link, stream, Latency(), std::move(message));
  }

  const NetworkCounts& counts() const { return counts_; }

 private:
  absl::Duration Latency() {
    if (random_.Chance(weather_.delay)) {
      ++counts_.delayed;
      return random_.Between(absl::Minutes(1), absl::Minutes(30));
    }
    return random_.Between(absl::Milliseconds(1), absl::Seconds(3));
  }
  void Deliver(const std::string& link, const std::string& stream, absl::Duration latency,
               std::function<void()> message) {
    Instant arrival = events_->now() + latency;
    if (!stream.empty() && !weather_.rude) {
      Instant& last = last_arrival_[stream];
      arrival = last = std::max(last, arrival);
    }
    events_->At(arrival, [this, link, message = std::move(message)] {
      if (!IsCut(link)) message();
    });
  }

  EventQueue* const events_;
  Random random_;
  Weather weather_;
  std::map<std::string, Instant> cut_until_;
  std::map<std::string, Instant> last_arrival_;
  NetworkCounts counts_;
};

}  // namespace assay::simulation
