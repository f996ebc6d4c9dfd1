// Serves everything that people watch: one thread that looks at the present now and then and tells
// each watcher what is new to it. Watchers cost the control plane nothing but a snapshot, which
// they share.
//
// Thread-safe.
#pragma once

#include <absl/time/time.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <thread>

namespace assay::coordinator {

class WatchHub {
 public:
  WatchHub();
  ~WatchHub() { Stop(); }

  // Calls `step` on the hub's thread now and then every `interval`, until it returns false. After
  // Stop, `abandon` is called instead, once.
  void Add(absl::Duration interval, std::function<bool()> step, std::function<void()> abandon);

  void Stop();

 private:
  struct Watch {
    absl::Duration interval;
    std::function<bool()> step;
    std::function<void()> abandon;
    std::chrono::steady_clock::time_point due;  // the first step is due at once
  };
  void Loop();

  std::mutex mutex_;  // guards the next three
  std::condition_variable changed_;
  std::list<Watch> added_;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace assay::coordinator
