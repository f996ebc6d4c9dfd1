#include "worker/wire/frame.h"

#include <absl/time/clock.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "base/status.h"

namespace assay::worker {
namespace {

constexpr size_t kHeaderBytes = 4;
// Memory is committed in steps of this size, so that a lying length costs what was really sent.
constexpr size_t kReadStepBytes = size_t{1} << 20;

// Time left of a wait that began when the object was made.
class Deadline {
 public:
  explicit Deadline(absl::Duration timeout) : end_(RealClock::Get()->Monotonic() + timeout) {}

  // Milliseconds for poll(2): -1 is for ever, and a remainder is rounded up.
  int PollMillis() const {
    if (end_ == absl::InfiniteDuration()) return -1;
    const absl::Duration left = end_ - RealClock::Get()->Monotonic();
    if (left <= absl::ZeroDuration()) return 0;
    constexpr int64_t kLongest = 1 << 30;
    return static_cast<int>(std::min(kLongest, absl::ToInt64Milliseconds(left) + 1));
  }

 private:
  const absl::Duration end_;
};

// Waits until `fd` can do `events`. Errors and hang-ups count as ready: the call that follows says
// what happened.
absl::Status WaitReady(int fd, short events, const Deadline& deadline) {
  while (true) {
    struct pollfd poll_fd = {fd, events, 0};
    const int ready = ::poll(&poll_fd, 1, deadline.PollMillis());
    if (ready > 0) return absl::OkStatus();
    if (ready == 0) return DeadlineExceeded("descriptor {}: the other side does not move", fd);
    if (errno != EINTR) return Unavailable("descriptor {}: poll: {}", fd, std::strerror(errno));
  }
}

// Reads up to `size` bytes; fewer only at the end of the stream.
absl::StatusOr<size_t> ReadUpTo(int fd, char* data, size_t size, const Deadline& deadline) {
  size_t received = 0;
  while (received < size) {
    ASSAY_RETURN_IF_ERROR(WaitReady(fd, POLLIN, deadline));
    const ssize_t n = ::read(fd, data + received, size - received);
    if (n == 0) return received;
    if (n > 0) {
      received += static_cast<size_t>(n);
    } else if (errno != EINTR && errno != EAGAIN) {
      return Unavailable("descriptor {}: read failed: {}", fd, std::strerror(errno));
    }
  }
  return received;
}

uint32_t DecodeLength(const unsigned char* bytes) {
  return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
         static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

}  // namespace

absl::Status WriteFrame(int fd, const google::protobuf::MessageLite& message,
                        absl::Duration timeout) {
  const size_t size = message.ByteSizeLong();
  if (size > static_cast<size_t>(kMaxFrameBytes)) {
    return InvalidArgument("{} of {} bytes: a frame holds at most {}", message.GetTypeName(), size,
                           kMaxFrameBytes);
  }
  // One buffer, one write in the common case: frames of threads never interleave by halves.
  std::string frame(kHeaderBytes, '\0');
  for (size_t i = 0; i < kHeaderBytes; ++i) frame[i] = static_cast<char>(size >> (8 * i));
  message.AppendToString(&frame);

  const Deadline deadline(timeout);
  size_t sent = 0;
  while (sent < frame.size()) {
    const ssize_t n = ::write(fd, frame.data() + sent, frame.size() - sent);
    if (n >= 0) {
      sent += static_cast<size_t>(n);
    } else if (errno == EAGAIN) {
      ASSAY_RETURN_IF_ERROR(WaitReady(fd, POLLOUT, deadline));
    } else if (errno != EINTR) {
      return Unavailable("descriptor {}: write failed: {}", fd, std::strerror(errno));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> ReadFrame(int fd, google::protobuf::MessageLite* message,
                               absl::Duration timeout) {
  const Deadline deadline(timeout);
  unsigned char header[kHeaderBytes];
  ASSAY_ASSIGN_OR_RETURN(const size_t header_bytes,
                         ReadUpTo(fd, reinterpret_cast<char*>(header), kHeaderBytes, deadline));
  if (header_bytes == 0) return false;
  if (header_bytes < kHeaderBytes) {
    return DataLoss("the stream ended after {} of {} bytes of a frame's length", header_bytes,
                    kHeaderBytes);
  }
  const size_t size = DecodeLength(header);
  if (size > static_cast<size_t>(kMaxFrameBytes)) {
    return DataLoss("a frame claims {} bytes, more than the limit of {}", size, kMaxFrameBytes);
  }
  std::string body;
  while (body.size() < size) {
    const size_t old_size = body.size();
    const size_t step = std::min(kReadStepBytes, size - old_size);
    body.resize(old_size + step);
    ASSAY_ASSIGN_OR_RETURN(const size_t received,
                           ReadUpTo(fd, body.data() + old_size, step, deadline));
    if (received < step) {
      return DataLoss("the stream ended after {} of {} bytes of a frame", old_size + received,
                      size);
    }
  }
  if (!message->ParseFromString(body)) {
    return DataLoss("a frame of {} bytes is no {}", size, message->GetTypeName());
  }
  return true;
}

absl::Status SetNonBlocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return Unavailable("descriptor {}: cannot be made non-blocking: {}", fd, std::strerror(errno));
  }
  return absl::OkStatus();
}

}  // namespace assay::worker
