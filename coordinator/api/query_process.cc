#include "coordinator/api/query_process.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <google/protobuf/util/delimited_message_util.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include "base/exit_codes.h"
#include "base/status.h"
#include "base/subprocess.h"
#include "storage/sqlite/query_runner.h"

namespace assay::coordinator {
namespace {

namespace io = google::protobuf::io;
using storage::sqlite::QueryLimits;
using storage::sqlite::QueryRunner;
using storage::sqlite::QuerySummary;
using storage::sqlite::QueryValue;

constexpr int64_t kDefaultRows = 10'000;
constexpr int64_t kMaxRows = 1'000'000;
constexpr size_t kMaxSqlBytes = 64 << 10;
constexpr absl::Duration kLongestQuery = absl::Minutes(5);
// SQLite ends most queries by itself, with rows so far; the timer is for the others.
constexpr absl::Duration kTimerGrace = absl::Seconds(1);
constexpr int64_t kMaxHeapBytes = int64_t{1} << 30;
// A part of rows goes out when it is this full.
constexpr size_t kRowBytesPerPart = 256 << 10;
constexpr int kRowsPerPart = 1000;

// Tags of frames: a part of the answer, or the end with this status code.
constexpr uint32_t kPart = 0;
constexpr uint32_t kEnd = 1;

QueryLimits LimitsOf(const v1::RunQueryRequest& request) {
  QueryLimits limits;
  limits.max_rows = request.max_rows() <= 0 ? kDefaultRows : std::min(request.max_rows(), kMaxRows);
  if (request.timeout_us() > 0) {
    limits.timeout = std::min(absl::Microseconds(request.timeout_us()), kLongestQuery);
  }
  return limits;
}

bool WriteFrame(io::FileOutputStream* out, uint32_t tag, const std::string& bytes) {
  {
    io::CodedOutputStream coded(out);
    coded.WriteVarint32(tag);
    coded.WriteVarint32(static_cast<uint32_t>(bytes.size()));
    coded.WriteString(bytes);
  }
  return out->Flush();
}

// A pipe whose reader may lose interest while nothing comes.
class WatchedPipe final : public io::CopyingInputStream {
 public:
  WatchedPipe(int fd, const QueryReader* reader) : fd_(fd), reader_(*reader) {}

  int Read(void* buffer, int size) override {
    pollfd waiting = {.fd = fd_, .events = POLLIN, .revents = 0};
    while (reader_.is_waiting()) {
      const int num_ready = ::poll(&waiting, 1, kLookInterval);
      if (num_ready == 0 || (num_ready < 0 && errno == EINTR)) continue;
      return static_cast<int>(::read(fd_, buffer, static_cast<size_t>(size)));
    }
    return -1;
  }

 private:
  static constexpr int kLookInterval = 200;  // milliseconds

  const int fd_;
  const QueryReader& reader_;
};

bool ReadFrame(io::ZeroCopyInputStream* in, uint32_t* tag, std::string* bytes) {
  io::CodedInputStream coded(in);
  uint32_t size = 0;
  return coded.ReadVarint32(tag) && coded.ReadVarint32(&size) &&
         coded.ReadString(bytes, static_cast<int>(size));
}

v1::RunQueryResponse::Value ToProto(const QueryValue& value) {
  v1::RunQueryResponse::Value proto;
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    proto.set_integer(*integer);
  } else if (const auto* real = std::get_if<double>(&value)) {
    proto.set_real(*real);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    proto.set_text(*text);
  } else if (const auto* blob = std::get_if<storage::sqlite::BlobValue>(&value)) {
    proto.set_blob(blob->bytes);
  } else {
    proto.set_null(true);
  }
  return proto;
}

// The process's side.
absl::Status Answer(const std::string& database, const v1::RunQueryRequest& request,
                    io::FileOutputStream* out) {
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<QueryRunner> runner, QueryRunner::Open(database));
  v1::RunQueryResponse pending;
  size_t pending_bytes = 0;
  const auto send = [&] {
    pending_bytes = 0;
    return WriteFrame(out, kPart, std::exchange(pending, {}).SerializeAsString());
  };
  const auto on_columns = [&](const std::vector<std::string>& columns) {
    for (const std::string& column : columns) pending.add_columns(column);
    return true;
  };
  const auto on_row = [&](const std::vector<QueryValue>& values) {
    v1::RunQueryResponse::Row* row = pending.add_rows();
    for (const QueryValue& value : values) *row->add_values() = ToProto(value);
    pending_bytes += row->ByteSizeLong();
    return (pending_bytes < kRowBytesPerPart && pending.rows_size() < kRowsPerPart) || send();
  };
  ASSAY_ASSIGN_OR_RETURN(const QuerySummary summary,
                         runner->Run(request.sql(), LimitsOf(request), on_columns, on_row));
  pending.set_truncated(summary.truncated);
  if (!send()) return Cancelled("the reader is gone");
  return absl::OkStatus();
}

// By SIGALRM, which this process does not expect.
void EndProcessAfter(absl::Duration timeout) {
  itimerval timer = {};
  timer.it_value = absl::ToTimeval(timeout);
  (void)::setitimer(ITIMER_REAL, &timer, nullptr);
}

absl::Status DescribeDeath(int wait_status, const QueryLimits& limits) {
  if (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGALRM) {
    return storage::sqlite::QueryTookTooLong(limits);
  }
  return ResourceExhausted("the query's process ended with {}; ask for less",
                           DescribeWaitStatus(wait_status));
}

}  // namespace

absl::Status RunQueryProcess(const std::string& program, const std::string& database,
                             const v1::RunQueryRequest& request, const QueryReader& reader) {
  if (request.sql().size() > kMaxSqlBytes) {
    return InvalidArgument("sql has {} bytes; at most {} are allowed", request.sql().size(),
                           kMaxSqlBytes);
  }
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<Subprocess> process,
                         Subprocess::Start({.argv = {program, kAnswerQueryVerb, database},
                                            .environment = {},
                                            .pipe_stdin = true,
                                            .pipe_stdout = true,
                                            .stderr_path = "",
                                            .stdout_path = "",
                                            .own_process_group = true}));
  if (!google::protobuf::util::SerializeDelimitedToFileDescriptor(request, process->stdin_fd())) {
    return Unavailable("the query's process took no request");
  }
  process->CloseStdin();
  WatchedPipe pipe(process->stdout_fd(), &reader);
  io::CopyingInputStreamAdaptor in(&pipe);
  uint32_t tag = 0;
  std::string bytes;
  while (ReadFrame(&in, &tag, &bytes)) {
    if (tag >= kEnd) return {static_cast<absl::StatusCode>(tag - kEnd), bytes};
    v1::RunQueryResponse part;
    if (!part.ParseFromString(bytes)) return Internal("the query's process sent no answer");
    if (!reader.take(std::move(part))) return Cancelled("the reader is gone");
  }
  if (!reader.is_waiting()) return Cancelled("nobody waits for the query any more");
  const std::optional<int> wait_status = process->Wait(absl::Seconds(5));
  if (!wait_status.has_value()) return Internal("the query's process closed its answer");
  return DescribeDeath(*wait_status, LimitsOf(request));
}

int AnswerQuery(const std::string& database) {
  const rlimit no_core = {0, 0};
  (void)::setrlimit(RLIMIT_CORE, &no_core);
  storage::sqlite::LimitHeapOfProcess(kMaxHeapBytes);
  v1::RunQueryRequest request;
  io::FileInputStream in(STDIN_FILENO);
  bool clean_end = false;
  if (!google::protobuf::util::ParseDelimitedFromZeroCopyStream(&request, &in, &clean_end)) {
    return kExitUsage;
  }
  EndProcessAfter(LimitsOf(request).timeout + kTimerGrace);
  io::FileOutputStream out(STDOUT_FILENO);
  const absl::Status status = Answer(database, request, &out);
  const uint32_t tag = kEnd + static_cast<uint32_t>(status.raw_code());
  return WriteFrame(&out, tag, std::string(status.message())) ? kExitOk : kExitUnavailable;
}

}  // namespace assay::coordinator
