// Framed messages over file descriptors: how the agent speaks with runners and graders.
//
// A frame is a 4-byte little-endian length and that many bytes of a serialized protobuf message.
// The other side may be broken, stopped or lying, so a length is believed only up to
// kMaxFrameBytes and memory grows with what really arrives, and every wait may have a limit.
//
// A time limit on writing needs a non-blocking descriptor (SetNonBlocking); reading waits with
// poll(2) and needs none. Whoever writes to a pipe ignores SIGPIPE for the whole process.
//
// The functions have no state. One descriptor is read by one thread and written by one.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <google/protobuf/message_lite.h>

#include <cstdint>
#include <string>

namespace assay::worker {

inline constexpr int64_t kMaxFrameBytes = int64_t{64} << 20;

// Sends one message. INVALID_ARGUMENT when it is larger than a frame may be (nothing is sent);
// UNAVAILABLE when the reader is gone; DEADLINE_EXCEEDED when it does not read: part of the frame
// may be out, so the only thing left to do with the descriptor is to close it.
absl::Status WriteFrame(int fd, const google::protobuf::MessageLite& message,
                        absl::Duration timeout = absl::InfiniteDuration());

// Receives one message. False at the end of the stream, between frames. DATA_LOSS for a stream that
// ends inside a frame, a length beyond the limit, or bytes that are no such message;
// DEADLINE_EXCEEDED when the frame is not complete in time. After an error the stream is out of
// step and must be closed.
absl::StatusOr<bool> ReadFrame(int fd, google::protobuf::MessageLite* message,
                               absl::Duration timeout = absl::InfiniteDuration());

absl::Status SetNonBlocking(int fd);

}  // namespace assay::worker
