#include "worker/wire/frame.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "assay/v1/runner.pb.h"
#include "tests/testing/status_matchers.h"

namespace assay::worker {
namespace {

using testing::IsError;

class FrameTest : public ::testing::Test {
 protected:
  FrameTest() {
    ::signal(SIGPIPE, SIG_IGN);
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    reader_ = ends[0];
    writer_ = ends[1];
  }
  ~FrameTest() override {
    CloseReader();
    CloseWriter();
  }
  void CloseReader() {
    if (reader_ >= 0) ::close(reader_);
    reader_ = -1;
  }
  void CloseWriter() {
    if (writer_ >= 0) ::close(writer_);
    writer_ = -1;
  }
  void Send(const std::string& bytes) {
    ASSERT_EQ(::write(writer_, bytes.data(), bytes.size()), std::ssize(bytes));
  }
  static v1::GradeRequest Request(const std::string& response) {
    v1::GradeRequest request;
    request.set_request_id(7);
    request.set_response(response);
    return request;
  }

  int reader_ = -1;
  int writer_ = -1;
};

TEST_F(FrameTest, MessagesArriveInOrderAndTheEndIsSeen) {
  ASSERT_OK(WriteFrame(writer_, Request("one")));
  ASSERT_OK(WriteFrame(writer_, v1::GradeRequest()));  // an empty message is a frame too
  CloseWriter();
  v1::GradeRequest received;
  ASSERT_OK_AND_ASSIGN(bool more, ReadFrame(reader_, &received));
  EXPECT_TRUE(more);
  EXPECT_EQ(received.response(), "one");
  ASSERT_OK_AND_ASSIGN(more, ReadFrame(reader_, &received));
  EXPECT_TRUE(more);
  EXPECT_EQ(received.ByteSizeLong(), 0u);
  ASSERT_OK_AND_ASSIGN(more, ReadFrame(reader_, &received));
  EXPECT_FALSE(more);
}

TEST_F(FrameTest, AMessageLargerThanThePipePassesInPieces) {
  const std::string large(3'000'000, 'x');
  std::thread sender([&] { EXPECT_OK(WriteFrame(writer_, Request(large))); });
  v1::GradeRequest received;
  ASSERT_OK_AND_ASSIGN(const bool more, ReadFrame(reader_, &received));
  sender.join();
  EXPECT_TRUE(more);
  EXPECT_EQ(received.response(), large);
}

TEST_F(FrameTest, AStreamCutAnywhereInsideAFrameIsDataLoss) {
  std::string body;
  Request("abc").SerializeToString(&body);
  const std::string frame = std::string{static_cast<char>(body.size()), 0, 0, 0} + body;
  for (size_t kept = 1; kept < frame.size(); ++kept) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    ASSERT_EQ(::write(ends[1], frame.data(), kept), static_cast<ssize_t>(kept));
    ::close(ends[1]);
    v1::GradeRequest received;
    EXPECT_THAT(ReadFrame(ends[0], &received),
                IsError(absl::StatusCode::kDataLoss, "the stream ended after"));
    ::close(ends[0]);
  }
}

TEST_F(FrameTest, ALengthBeyondTheLimitIsRefusedBeforeAnythingIsRead) {
  Send("\xFF\xFF\xFF\xFF");
  v1::GradeRequest received;
  EXPECT_THAT(ReadFrame(reader_, &received),
              IsError(absl::StatusCode::kDataLoss, "claims 4294967295 bytes"));
}

TEST_F(FrameTest, BytesThatAreNoMessageAreDataLoss) {
  Send(std::string("\x04\x00\x00\x00\xFF\xFF\xFF\xFF", 8));
  v1::GradeRequest received;
  EXPECT_THAT(ReadFrame(reader_, &received),
              IsError(absl::StatusCode::kDataLoss, "is no assay.v1.GradeRequest"));
}

TEST_F(FrameTest, AMessageLargerThanAFrameIsNotSent) {
  EXPECT_THAT(WriteFrame(writer_, Request(std::string(kMaxFrameBytes, 'x'))),
              IsError(absl::StatusCode::kInvalidArgument, "a frame holds at most"));
}

TEST_F(FrameTest, WritingToAReaderThatIsGoneIsUnavailable) {
  CloseReader();
  EXPECT_THAT(WriteFrame(writer_, Request("x")),
              IsError(absl::StatusCode::kUnavailable, "Broken pipe"));
}

TEST_F(FrameTest, ASilentPeerCostsNoMoreThanTheTimeLimit) {
  v1::GradeRequest received;
  EXPECT_THAT(ReadFrame(reader_, &received, absl::Milliseconds(5)),
              IsError(absl::StatusCode::kDeadlineExceeded, ""));
  Send(std::string("\x08\x00", 2));  // half a length, then silence
  EXPECT_THAT(ReadFrame(reader_, &received, absl::Milliseconds(5)),
              IsError(absl::StatusCode::kDeadlineExceeded, ""));
}

TEST_F(FrameTest, APeerThatDoesNotReadCostsNoMoreThanTheTimeLimit) {
  ASSERT_OK(SetNonBlocking(writer_));
  EXPECT_THAT(WriteFrame(writer_, Request(std::string(1'000'000, 'x')), absl::Milliseconds(5)),
              IsError(absl::StatusCode::kDeadlineExceeded, "does not move"));
}

}  // namespace
}  // namespace assay::worker
