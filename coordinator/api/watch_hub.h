// Serves everything that people watch: one thread that looks at the present now and then and tells
// each watcher what is new to it. Watchers cost the control plane nothing but a snapshot, which
// they share.
//
// Thread-safe.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>

#include <functional>
#include <list>
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
    absl::Time due;
  };
  void Loop();

  absl::Mutex mutex_;
  std::list<Watch> added_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace assay::coordinator
