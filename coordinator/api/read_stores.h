// Read-only connections to the database, opened as needed and used again.
#pragma once

#include <absl/status/statusor.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "storage/stores/read_store.h"

namespace assay::coordinator {

// Thread-safe; a borrowed store belongs to one thread at a time.
class ReadStores {
 public:
  explicit ReadStores(std::string path) : path_(std::move(path)) {}

  class Borrowed {
   public:
    Borrowed(ReadStores* owner, std::unique_ptr<storage::ReadStore> store)
        : owner_(owner), store_(std::move(store)) {}
    Borrowed(Borrowed&&) = default;
    Borrowed& operator=(Borrowed&&) = delete;
    ~Borrowed() {
      if (store_) owner_->Return(std::move(store_));
    }
    storage::ReadStore& operator*() const { return *store_; }
    storage::ReadStore* operator->() const { return store_.get(); }

   private:
    ReadStores* owner_;
    std::unique_ptr<storage::ReadStore> store_;
  };

  // ReadStore::Open's errors.
  absl::StatusOr<Borrowed> Borrow() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<storage::ReadStore> store = std::move(idle_.back());
        idle_.pop_back();
        return Borrowed(this, std::move(store));
      }
    }
    absl::StatusOr<std::unique_ptr<storage::ReadStore>> opened = storage::ReadStore::Open(path_);
    if (!opened.ok()) return opened.status();
    return Borrowed(this, *std::move(opened));
  }

  const std::string& path() const { return path_; }

 private:
  void Return(std::unique_ptr<storage::ReadStore> store) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(store));
  }

  const std::string path_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<storage::ReadStore>> idle_;  // guarded by mutex_
};

}  // namespace assay::coordinator
