// A disk in memory under SQLite: a VFS that takes the place of the operating system's, so that the
// storage code runs unchanged and every write may fail, tear or be lost.
//
// A file is what the operating system shows of it, plus the writes that no sync has made durable. A
// killed process leaves what was written; a power cut leaves of the unsynced writes any sectors of
// 512 bytes, in no order. Handles of before a crash are dead: whatever they still try fails.
//
// One disk exists at a time, for one thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/random.h"

struct sqlite3_file;

namespace assay::simulation {

enum class CrashKind { kKilled, kPowerCut };

class SimDisk {
 public:
  explicit SimDisk(uint64_t seed);
  ~SimDisk();
  SimDisk(const SimDisk&) = delete;
  SimDisk& operator=(const SimDisk&) = delete;

  // Crashes now, or in the middle of the n-th write or sync from now on.
  void Crash(CrashKind kind);
  void CrashAfter(int64_t num_operations, CrashKind kind);
  // Whether a crash has happened since Restart, which lets new handles work.
  bool crashed() const { return crashed_; }
  void Restart();

  // While full, no file grows. While failing, each operation fails with this probability.
  void SetFull(bool full) { full_ = full; }
  void SetFailing(double probability) { failing_ = probability; }
  bool is_failing() const { return failing_ > 0; }
  // A planted bug: syncs that sync nothing.
  void IgnoreSyncs() { ignores_syncs_ = true; }

  // While one lives, reads do not fail: the oracle looks.
  class Truce {
   public:
    Truce() { ++num_truces_; }
    ~Truce() { --num_truces_; }
    Truce(const Truce&) = delete;
    Truce& operator=(const Truce&) = delete;
  };

  int64_t num_refused() const { return num_refused_; }  // writes to a full or failing disk
  int64_t num_torn() const { return num_torn_; }        // sectors lost at power cuts

  // The parts of the VFS (sim_disk.cc).
  struct Write {
    int64_t offset = 0;
    int64_t size_before = 0;
    std::string before;  // what it replaced, as far as there was something
    std::string after;   // empty: the file was cut to `offset`
    bool is_truncate = false;
  };
  struct SharedMemory {
    std::vector<std::unique_ptr<char[]>> regions;
    int shared[8] = {};
    const void* exclusive[8] = {};
  };
  struct File {
    std::string bytes;
    std::vector<Write> unsynced;
    std::shared_ptr<SharedMemory> shared_memory = std::make_shared<SharedMemory>();
    std::map<const void*, int> locks;  // by handle
  };
  std::shared_ptr<File> Open(const std::string& path, bool create);
  bool Exists(const std::string& path) const { return files_.contains(path); }
  void Delete(const std::string& path) { files_.erase(path); }
  int generation() const { return generation_; }
  // SQLITE_OK, or the error with which the operation fails; counts down to a planned crash.
  int BeforeWrite(File* file, int64_t offset, const char* bytes, int64_t size);
  int BeforeTruncate();
  int Sync(File* file);
  bool FailsRead();
  Random& random() { return random_; }

 private:
  static inline int num_truces_ = 0;

  bool CountDown();
  void LosePower(File* file);

  Random random_;
  std::map<std::string, std::shared_ptr<File>> files_;
  int generation_ = 1;
  bool crashed_ = false;
  int64_t operations_to_crash_ = -1;
  CrashKind planned_kind_ = CrashKind::kKilled;
  bool full_ = false;
  double failing_ = 0;
  bool ignores_syncs_ = false;
  int64_t num_refused_ = 0;
  int64_t num_torn_ = 0;
};

}  // namespace assay::simulation
