#include "tests/simulation/sim_disk.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>

#include "base/status.h"

namespace assay::simulation {
namespace {

constexpr int64_t kSectorBytes = 512;
constexpr int kMaxPath = 512;

SimDisk* g_disk = nullptr;

struct Handle {
  sqlite3_file base;
  std::shared_ptr<SimDisk::File>* file;
  std::shared_ptr<SimDisk::SharedMemory>* shared_memory;
  int generation;
};

Handle* Self(sqlite3_file* file) { return reinterpret_cast<Handle*>(file); }
SimDisk::File* FileOf(sqlite3_file* file) { return Self(file)->file->get(); }
bool IsDead(sqlite3_file* file) {
  return g_disk == nullptr || Self(file)->generation != g_disk->generation() || g_disk->crashed();
}

void Unlock(Handle* self) {
  (*self->file)->locks.erase(self);
  SimDisk::SharedMemory& memory = **self->shared_memory;
  for (const void*& owner : memory.exclusive) {
    if (owner == self) owner = nullptr;
  }
}

int Close(sqlite3_file* file) {
  Handle* const self = Self(file);
  Unlock(self);
  delete self->file;
  delete self->shared_memory;
  return SQLITE_OK;
}

int Read(sqlite3_file* file, void* buffer, int size, sqlite3_int64 offset) {
  if (IsDead(file) || g_disk->FailsRead()) return SQLITE_IOERR_READ;
  const std::string& bytes = FileOf(file)->bytes;
  const auto length = static_cast<int64_t>(bytes.size());
  const int64_t available = std::clamp<int64_t>(length - offset, 0, size);
  if (available > 0) {
    memcpy(buffer, bytes.data() + offset, static_cast<size_t>(available));
  }
  if (available == size) return SQLITE_OK;
  memset(static_cast<char*>(buffer) + available, 0, static_cast<size_t>(size - available));
  return SQLITE_IOERR_SHORT_READ;
}

int WriteFile(sqlite3_file* file, const void* buffer, int size, sqlite3_int64 offset) {
  if (IsDead(file)) return SQLITE_IOERR_WRITE;
  return g_disk->BeforeWrite(FileOf(file), offset, static_cast<const char*>(buffer), size);
}

int Truncate(sqlite3_file* file, sqlite3_int64 size) {
  if (IsDead(file)) return SQLITE_IOERR_TRUNCATE;
  if (const int code = g_disk->BeforeTruncate(); code != SQLITE_OK) return code;
  SimDisk::File& data = *FileOf(file);
  if (static_cast<size_t>(size) >= data.bytes.size()) return SQLITE_OK;
  data.unsynced.push_back({size, static_cast<int64_t>(data.bytes.size()),
                           data.bytes.substr(static_cast<size_t>(size)), "", true});
  data.bytes.resize(static_cast<size_t>(size));
  return SQLITE_OK;
}

int SyncFile(sqlite3_file* file, int /*flags*/) {
  if (IsDead(file)) return SQLITE_IOERR_FSYNC;
  return g_disk->Sync(FileOf(file));
}

int FileSize(sqlite3_file* file, sqlite3_int64* size) {
  if (IsDead(file)) return SQLITE_IOERR_FSTAT;
  *size = static_cast<sqlite3_int64>(FileOf(file)->bytes.size());
  return SQLITE_OK;
}

// Locks of the database file: 1 shared, 2 reserved, 3 pending, 4 exclusive.
int Lock(sqlite3_file* file, int level) {
  if (IsDead(file)) return SQLITE_IOERR_LOCK;
  std::map<const void*, int>& locks = FileOf(file)->locks;
  for (const auto& [owner, held] : locks) {
    if (owner == file) continue;
    const bool conflict = level == SQLITE_LOCK_SHARED      ? held >= SQLITE_LOCK_PENDING
                          : level == SQLITE_LOCK_EXCLUSIVE ? held >= SQLITE_LOCK_SHARED
                                                           : held >= SQLITE_LOCK_RESERVED;
    if (conflict) return SQLITE_BUSY;
  }
  int& held = locks[file];
  held = std::max(held, level);
  return SQLITE_OK;
}

int UnlockFile(sqlite3_file* file, int level) {
  std::map<const void*, int>& locks = FileOf(file)->locks;
  if (level == SQLITE_LOCK_NONE) {
    locks.erase(file);
  } else {
    locks[file] = level;
  }
  return SQLITE_OK;
}

int CheckReservedLock(sqlite3_file* file, int* reserved) {
  *reserved = 0;
  for (const auto& [owner, held] : FileOf(file)->locks) {
    if (held >= SQLITE_LOCK_RESERVED) *reserved = 1;
  }
  return SQLITE_OK;
}

int FileControl(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int SectorSize(sqlite3_file*) { return kSectorBytes; }
int DeviceCharacteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

int ShmMap(sqlite3_file* file, int region, int size, int extend, void volatile** memory) {
  *memory = nullptr;
  if (IsDead(file)) return SQLITE_IOERR_SHMMAP;
  auto& regions = (*Self(file)->shared_memory)->regions;
  while (extend != 0 && regions.size() <= static_cast<size_t>(region)) {
    regions.push_back(std::make_unique<char[]>(static_cast<size_t>(size)));  // zeros
  }
  if (static_cast<size_t>(region) < regions.size()) {
    *memory = regions[static_cast<size_t>(region)].get();
  }
  return SQLITE_OK;
}

int ShmLock(sqlite3_file* file, int offset, int count, int flags) {
  SimDisk::SharedMemory& memory = **Self(file)->shared_memory;
  const bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
  for (int i = offset; i < offset + count; ++i) {
    if ((flags & SQLITE_SHM_UNLOCK) != 0) {
      if (exclusive) {
        if (memory.exclusive[i] == file) memory.exclusive[i] = nullptr;
      } else if (memory.shared[i] > 0) {
        --memory.shared[i];
      }
      continue;
    }
    if (IsDead(file)) return SQLITE_IOERR_SHMLOCK;
    if (memory.exclusive[i] != nullptr && memory.exclusive[i] != file) return SQLITE_BUSY;
    if (exclusive && memory.shared[i] > 0) return SQLITE_BUSY;
  }
  if ((flags & SQLITE_SHM_LOCK) == 0) return SQLITE_OK;
  for (int i = offset; i < offset + count; ++i) {
    if (exclusive) {
      memory.exclusive[i] = file;
    } else {
      ++memory.shared[i];
    }
  }
  return SQLITE_OK;
}

void ShmBarrier(sqlite3_file*) {}
int ShmUnmap(sqlite3_file*, int) { return SQLITE_OK; }

constexpr sqlite3_io_methods kMethods = {
    .iVersion = 2,
    .xClose = Close,
    .xRead = Read,
    .xWrite = WriteFile,
    .xTruncate = Truncate,
    .xSync = SyncFile,
    .xFileSize = FileSize,
    .xLock = Lock,
    .xUnlock = UnlockFile,
    .xCheckReservedLock = CheckReservedLock,
    .xFileControl = FileControl,
    .xSectorSize = SectorSize,
    .xDeviceCharacteristics = DeviceCharacteristics,
    .xShmMap = ShmMap,
    .xShmLock = ShmLock,
    .xShmBarrier = ShmBarrier,
    .xShmUnmap = ShmUnmap,
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

int OpenFile(sqlite3_vfs*, const char* path, sqlite3_file* file, int flags, int* out_flags) {
  Handle* const self = Self(file);
  self->base.pMethods = nullptr;
  if (g_disk == nullptr || g_disk->crashed()) return SQLITE_CANTOPEN;
  std::shared_ptr<SimDisk::File> data = path == nullptr
                                            ? std::make_shared<SimDisk::File>()
                                            : g_disk->Open(path, (flags & SQLITE_OPEN_CREATE) != 0);
  if (data == nullptr) return SQLITE_CANTOPEN;
  self->shared_memory = new std::shared_ptr<SimDisk::SharedMemory>(data->shared_memory);
  self->file = new std::shared_ptr<SimDisk::File>(std::move(data));
  self->generation = g_disk->generation();
  self->base.pMethods = &kMethods;
  if (out_flags != nullptr) *out_flags = flags;
  return SQLITE_OK;
}

int DeleteFile(sqlite3_vfs*, const char* path, int) {
  if (g_disk != nullptr && !g_disk->crashed()) g_disk->Delete(path);
  return SQLITE_OK;
}

int Access(sqlite3_vfs*, const char* path, int /*flags*/, int* result) {
  *result = g_disk != nullptr && g_disk->Exists(path) ? 1 : 0;
  return SQLITE_OK;
}

int FullPath(sqlite3_vfs*, const char* path, int size, char* full) {
  sqlite3_snprintf(size, full, "%s", path);
  return SQLITE_OK;
}

int Randomness(sqlite3_vfs*, int size, char* bytes) {
  for (int i = 0; i < size; ++i) {
    bytes[i] = g_disk == nullptr ? '\0' : static_cast<char>(g_disk->random().Next());
  }
  return size;
}

int Sleep(sqlite3_vfs*, int microseconds) { return microseconds; }
int LastError(sqlite3_vfs*, int, char*) { return 0; }
// Nothing in the database depends on SQLite's own idea of the time.
int CurrentTime(sqlite3_vfs*, double* days) {
  *days = 2460000.5;
  return SQLITE_OK;
}

sqlite3_vfs* SimVfs() {
  static sqlite3_vfs vfs = {.iVersion = 1,
                            .szOsFile = sizeof(Handle),
                            .mxPathname = kMaxPath,
                            .pNext = nullptr,
                            .zName = "assay-simulation",
                            .pAppData = nullptr,
                            .xOpen = OpenFile,
                            .xDelete = DeleteFile,
                            .xAccess = Access,
                            .xFullPathname = FullPath,
                            .xDlOpen = nullptr,
                            .xDlError = nullptr,
                            .xDlSym = nullptr,
                            .xDlClose = nullptr,
                            .xRandomness = Randomness,
                            .xSleep = Sleep,
                            .xCurrentTime = CurrentTime,
                            .xGetLastError = LastError,
                            .xCurrentTimeInt64 = nullptr,
                            .xSetSystemCall = nullptr,
                            .xGetSystemCall = nullptr,
                            .xNextSystemCall = nullptr};
  return &vfs;
}

}  // namespace

SimDisk::SimDisk(uint64_t seed) : random_(seed) {
  ASSAY_CHECK(g_disk == nullptr, "two simulated disks at once");
  g_disk = this;
  sqlite3_vfs_register(SimVfs(), /*makeDflt=*/1);
  sqlite3_randomness(0, nullptr);  // SQLite's own generator starts again from this disk's seed
}

SimDisk::~SimDisk() {
  g_disk = nullptr;
  sqlite3_vfs_unregister(SimVfs());
}

std::shared_ptr<SimDisk::File> SimDisk::Open(const std::string& path, bool create) {
  const auto it = files_.find(path);
  if (it != files_.end()) return it->second;
  if (!create) return nullptr;
  return files_[path] = std::make_shared<File>();
}

void SimDisk::Crash(CrashKind kind) {
  operations_to_crash_ = -1;
  crashed_ = true;
  ++generation_;
  for (auto& [path, file] : files_) {
    // Dead handles keep the file of before.
    auto survivor = std::make_shared<File>();
    survivor->bytes = file->bytes;
    survivor->unsynced = file->unsynced;
    file = std::move(survivor);
    if (kind == CrashKind::kPowerCut) LosePower(file.get());
  }
}

void SimDisk::CrashAfter(int64_t num_operations, CrashKind kind) {
  operations_to_crash_ = num_operations;
  planned_kind_ = kind;
}

void SimDisk::Restart() {
  crashed_ = false;
  operations_to_crash_ = -1;
}

void SimDisk::LosePower(File* file) {
  for (auto write = file->unsynced.rbegin(); write != file->unsynced.rend(); ++write) {
    file->bytes.resize(static_cast<size_t>(write->size_before));
    if (write->before.empty()) continue;
    file->bytes.replace(static_cast<size_t>(write->offset), write->before.size(), write->before);
  }
  // All of them, none, or any of their sectors.
  const int64_t mode = random_.Below(3);
  for (const Write& write : file->unsynced) {
    if (write.is_truncate) {
      const auto size = static_cast<size_t>(write.offset);
      if (mode != 1 && random_.Chance(0.5) && size < file->bytes.size()) file->bytes.resize(size);
      continue;
    }
    const auto end = static_cast<int64_t>(write.after.size());
    for (int64_t at = 0; at < end; at += kSectorBytes) {
      if (mode == 1 || (mode == 2 && random_.Chance(0.5))) {
        ++num_torn_;
        continue;
      }
      const std::string sector = write.after.substr(static_cast<size_t>(at), kSectorBytes);
      const auto offset = static_cast<size_t>(write.offset + at);
      if (file->bytes.size() < offset + sector.size()) file->bytes.resize(offset + sector.size());
      file->bytes.replace(offset, sector.size(), sector);
    }
  }
  file->unsynced.clear();
}

bool SimDisk::CountDown() {
  if (operations_to_crash_ < 0) return false;
  return operations_to_crash_-- == 0;
}

int SimDisk::BeforeWrite(File* file, int64_t offset, const char* bytes, int64_t size) {
  const bool crash = CountDown();
  const auto old_size = static_cast<int64_t>(file->bytes.size());
  if (!crash) {
    if (full_ && offset + size > old_size) {
      ++num_refused_;
      return SQLITE_FULL;
    }
    if (failing_ > 0 && random_.Chance(failing_)) {
      ++num_refused_;
      return SQLITE_IOERR_WRITE;
    }
  }
  // A crash in the middle: some of it was written.
  const int64_t written = crash ? random_.Below(size + 1) : size;
  const auto from = static_cast<size_t>(std::min(offset, old_size));
  const auto replaced = static_cast<size_t>(std::clamp<int64_t>(old_size - offset, 0, written));
  file->unsynced.push_back({offset, old_size, file->bytes.substr(from, replaced),
                            std::string(bytes, static_cast<size_t>(written)), false});
  if (old_size < offset + written) file->bytes.resize(static_cast<size_t>(offset + written));
  memcpy(file->bytes.data() + offset, bytes, static_cast<size_t>(written));
  if (!crash) return SQLITE_OK;
  Crash(planned_kind_);
  return SQLITE_IOERR_WRITE;
}

int SimDisk::BeforeTruncate() {
  if (!CountDown()) return SQLITE_OK;
  Crash(planned_kind_);
  return SQLITE_IOERR_TRUNCATE;
}

int SimDisk::Sync(File* file) {
  if (CountDown()) {
    Crash(planned_kind_);
    return SQLITE_IOERR_FSYNC;
  }
  if (failing_ > 0 && random_.Chance(failing_)) {
    ++num_refused_;
    return SQLITE_IOERR_FSYNC;
  }
  if (!ignores_syncs_) file->unsynced.clear();
  return SQLITE_OK;
}

bool SimDisk::FailsRead() {
  if (failing_ <= 0 || num_truces_ > 0 || !random_.Chance(failing_)) return false;
  ++num_refused_;
  return true;
}

}  // namespace assay::simulation
