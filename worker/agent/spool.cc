#include "worker/agent/spool.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "base/log.h"
#include "base/status.h"

namespace assay::worker {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "samples-";
constexpr char kSuffix[] = ".spool";
constexpr size_t kMaxGroupRecords = 256;
constexpr size_t kProbeBytes = 64 << 10;

std::string SegmentPath(const std::string& directory, int64_t number) {
  return fmt::format("{}/{}{:012}{}", directory, kPrefix, number, kSuffix);
}

// The number in a segment's file name, or -1.
int64_t SegmentNumber(const std::string& file_name) {
  if (!file_name.starts_with(kPrefix) || !file_name.ends_with(kSuffix)) return -1;
  const size_t begin = sizeof(kPrefix) - 1;
  const std::string digits =
      file_name.substr(begin, file_name.size() - begin - (sizeof(kSuffix) - 1));
  if (digits.empty() || digits.size() > 18 ||
      digits.find_first_not_of("0123456789") != std::string::npos) {
    return -1;
  }
  return std::stoll(digits);
}

absl::StatusOr<int> LockDirectory(const std::string& directory) {
  const std::string path = directory + "/lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return Unavailable("{}: cannot open: {}", path, std::strerror(errno));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd);
    return FailedPrecondition(
        "{}: another worker uses this spool; give each worker a --spool of its own", directory);
  }
  return fd;
}

void DeleteFiles(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) ::unlink(path.c_str());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Spool>> Spool::Open(Options options) {
  ASSAY_RETURN_IF_ERROR(MakeDirectories(options.directory));
  ASSAY_ASSIGN_OR_RETURN(const int lock_fd, LockDirectory(options.directory));
  std::unique_ptr<Spool> spool(new Spool(std::move(options), lock_fd));
  ASSAY_RETURN_IF_ERROR(spool->Replay());
  spool->thread_ = std::thread([raw = spool.get()] { raw->WriteLoop(); });
  return spool;
}

Spool::Spool(Options options, int lock_fd) : options_(std::move(options)), lock_fd_(lock_fd) {}

Spool::~Spool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  writer_.reset();
  for (auto& [number, segment] : segments_) segment.sealed = true;
  DeleteFiles(DropDeadSegments());
  ::close(lock_fd_);
}

absl::Status Spool::Replay() {
  std::map<int64_t, std::string> paths;
  std::error_code error;
  for (fs::directory_iterator it(options_.directory, error), end; !error && it != end;
       it.increment(error)) {
    const int64_t number = SegmentNumber(it->path().filename().string());
    if (number >= 0) paths[number] = it->path().string();
  }
  if (error) return Unavailable("{}: cannot list: {}", options_.directory, error.message());
  for (const auto& [number, path] : paths) {
    active_segment_ = std::max(active_segment_, number);
    absl::StatusOr<SegmentContent> content = ReadSegment(path);
    if (!content.ok()) {
      spdlog::error("spool: {}; its samples stay there", Message(content.status()));
      continue;
    }
    if (content->num_torn_bytes > 0) {
      spdlog::warn("spool: {}: {} bytes after offset {} are no whole record; a crash leaves that",
                   path, content->num_torn_bytes, content->num_good_bytes);
    }
    Segment& segment = segments_[number];
    segment = {path, content->num_good_bytes, static_cast<int>(content->records.size()), true};
    for (std::string& record : content->records) {
      entries_[next_id_++] = {std::move(record), number, false};
    }
  }
  DeleteFiles(DropDeadSegments());
  if (!entries_.empty()) {
    spdlog::info("spool: {} samples of an earlier run are still to be reported", entries_.size());
  }
  return absl::OkStatus();
}

void Spool::Add(std::string record) {
  {
    const std::lock_guard lock(mutex_);
    const int64_t id = next_id_++;
    entries_[id].bytes = std::move(record);
    undurable_.push_back(id);
  }
  changed_.notify_all();
}

// Durable records may be reported; so may those that the disk refuses to take, for the
// coordinator's disk is better than none.
bool Spool::Takeable(const Entry& entry) const {
  return !entry.out && (entry.segment >= 0 || !health_.ok());
}

std::vector<Spool::Record> Spool::Take(int max_records, int64_t max_bytes, absl::Duration timeout) {
  std::vector<Record> taken;
  std::unique_lock lock(mutex_);
  const auto any = [this] {
    return interrupted_ || std::any_of(entries_.begin(), entries_.end(),
                                       [this](const auto& item) { return Takeable(item.second); });
  };
  changed_.wait_for(lock, absl::ToChronoMilliseconds(timeout), any);
  if (interrupted_) return taken;
  int64_t num_bytes = 0;
  for (auto& [id, entry] : entries_) {
    if (!Takeable(entry)) continue;
    num_bytes += static_cast<int64_t>(entry.bytes.size());
    if (!taken.empty() && num_bytes > max_bytes) break;
    entry.out = true;
    taken.push_back({id, entry.bytes});
    if (std::ssize(taken) == max_records) break;
  }
  return taken;
}

void Spool::Return(const std::vector<int64_t>& ids) {
  {
    const std::lock_guard lock(mutex_);
    for (int64_t id : ids) {
      if (const auto it = entries_.find(id); it != entries_.end()) it->second.out = false;
    }
  }
  changed_.notify_all();
}

void Spool::Remove(const std::vector<int64_t>& ids) {
  std::vector<std::string> dead;
  {
    const std::lock_guard lock(mutex_);
    for (int64_t id : ids) {
      const auto it = entries_.find(id);
      if (it == entries_.end()) continue;
      if (it->second.segment >= 0) --segments_[it->second.segment].num_live;
      entries_.erase(it);  // the writer skips ids that are gone
    }
    dead = DropDeadSegments();
  }
  DeleteFiles(dead);
  changed_.notify_all();
}

// Forgets segments that nothing lives in; returns their files. Called with the lock held.
std::vector<std::string> Spool::DropDeadSegments() {
  std::vector<std::string> paths;
  for (auto it = segments_.begin(); it != segments_.end();) {
    if (it->second.num_live == 0 && it->second.sealed) {
      paths.push_back(it->second.path);
      it = segments_.erase(it);
    } else {
      ++it;
    }
  }
  return paths;
}

int Spool::num_records() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(entries_.size());
}

int Spool::num_undurable() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(std::count_if(entries_.begin(), entries_.end(),
                                        [](const auto& item) { return item.second.segment < 0; }));
}

absl::Status Spool::health() const {
  const std::lock_guard lock(mutex_);
  return health_;
}

absl::Status Spool::Flush() {
  std::unique_lock lock(mutex_);
  const int64_t last = next_id_;
  // The attempt under way may not include the newest records; the one after it does.
  const int64_t enough_attempts = num_write_attempts_ + 2;
  changed_.wait(lock, [&] {
    const bool durable = undurable_.empty() || undurable_.front() >= last;
    return durable || (!health_.ok() && num_write_attempts_ >= enough_attempts);
  });
  return health_;
}

void Spool::Interrupt() {
  {
    const std::lock_guard lock(mutex_);
    interrupted_ = true;
  }
  changed_.notify_all();
}

void Spool::WriteLoop() {
  std::unique_lock lock(mutex_);
  while (true) {
    // After a refusal it comes round by itself: nobody may have a sample to try the disk with.
    changed_.wait(lock, [this] { return stopping_ || !undurable_.empty() || !health_.ok(); });
    std::vector<int64_t> ids;
    std::vector<std::string> bytes;
    while (!undurable_.empty() && !entries_.contains(undurable_.front())) {
      undurable_.pop_front();  // reported from memory meanwhile
    }
    for (size_t i = 0; i < undurable_.size() && ids.size() < kMaxGroupRecords; ++i) {
      const auto it = entries_.find(undurable_[i]);
      if (it == entries_.end()) continue;
      ids.push_back(it->first);
      bytes.push_back(it->second.bytes);
    }
    if (ids.empty()) {
      changed_.notify_all();
      if (stopping_) return;
      if (health_.ok()) continue;
    }
    lock.unlock();
    const absl::Status written = ids.empty() ? ProbeDisk() : WriteGroup(ids, bytes);
    lock.lock();
    ++num_write_attempts_;
    if (written.ok()) {
      if (!health_.ok()) spdlog::info("spool: the disk takes samples again");
      while (!ids.empty() && !undurable_.empty() && undurable_.front() <= ids.back()) {
        undurable_.pop_front();
      }
      health_ = absl::OkStatus();
      changed_.notify_all();
      continue;
    }
    if (health_.ok()) {
      spdlog::error("spool: {}; samples stay in memory and no new work is taken until it works",
                    Message(written));
    }
    health_ = written;
    changed_.notify_all();
    if (stopping_) return;
    changed_.wait_for(lock, absl::ToChronoMilliseconds(options_.retry_interval),
                      [this] { return stopping_; });
  }
}

// Whether the disk takes bytes again. A worker whose disk was full takes no new work, and when its
// last samples were reported from memory, nothing else would ever find out.
absl::Status Spool::ProbeDisk() const {
  const std::string path = options_.directory + "/probe";
  ::unlink(path.c_str());  // of a process that died here
  absl::StatusOr<std::unique_ptr<SegmentWriter>> probe = SegmentWriter::Create(path);
  absl::Status written = probe.status();
  if (probe.ok()) written = (*probe)->Append({std::string(kProbeBytes, 'p')});
  ::unlink(path.c_str());
  return written;
}

// A large segment of which nothing lives is ended here rather than when it is full, so that a crash
// brings back few records that the coordinator has.
void Spool::SealForgottenSegment() {
  if (writer_ == nullptr || writer_->size_bytes() < options_.compact_bytes) return;
  std::vector<std::string> dead;
  {
    const std::lock_guard lock(mutex_);
    Segment& segment = segments_[active_segment_];
    if (segment.num_live > 0) return;
    segment.sealed = true;
    dead = DropDeadSegments();
  }
  writer_.reset();
  DeleteFiles(dead);
}

// Appends one group and marks its records durable. The writing thread alone calls it, unlocked.
absl::Status Spool::WriteGroup(const std::vector<int64_t>& ids,
                               const std::vector<std::string>& bytes) {
  SealForgottenSegment();
  if (writer_ == nullptr) {
    const int64_t number = active_segment_ + 1;
    const std::string path = SegmentPath(options_.directory, number);
    absl::StatusOr<std::unique_ptr<SegmentWriter>> writer = SegmentWriter::Create(path);
    if (!writer.ok()) {
      ::unlink(path.c_str());
      return writer.status();
    }
    writer_ = *std::move(writer);
    active_segment_ = number;
    const std::lock_guard lock(mutex_);
    segments_[number].path = path;
  }
  const absl::Status appended = writer_->Append({bytes.begin(), bytes.end()});
  // A segment that failed is not appended to again, and one that is large enough neither.
  const bool seal = !appended.ok() || writer_->size_bytes() >= options_.segment_bytes;
  std::vector<std::string> dead;
  {
    const std::lock_guard lock(mutex_);
    Segment& segment = segments_[active_segment_];
    segment.size_bytes = writer_->size_bytes();
    if (appended.ok()) {
      for (int64_t id : ids) {
        const auto it = entries_.find(id);
        if (it == entries_.end()) continue;
        it->second.segment = active_segment_;
        ++segment.num_live;
      }
    }
    segment.sealed = seal;
    if (seal) dead = DropDeadSegments();
  }
  if (seal) writer_.reset();
  DeleteFiles(dead);
  return appended;
}

}  // namespace assay::worker
