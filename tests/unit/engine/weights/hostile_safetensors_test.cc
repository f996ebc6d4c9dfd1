// Files that no writer makes: each is refused with a message that names the file and the tensor.
#include <sys/stat.h>

#include <cstring>

#include "base/file.h"
#include "engine/weights/checkpoint.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using testing::IsError;
using testing::TemporaryDirectory;

std::string WithLength(uint64_t length, const std::string& rest) {
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + rest;
}

// Length, header padded to 8 bytes, data.
std::string File(std::string header, const std::string& data) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return WithLength(header.size(), header + data);
}

class HostileSafetensorsTest : public ::testing::Test {
 protected:
  absl::Status Open(const std::string& content) {
    EXPECT_OK(WriteFileAtomically(folder_ / "model.safetensors", content));
    return Checkpoint::Open(folder_.path()).status();
  }

  TemporaryDirectory folder_;
};

TEST_F(HostileSafetensorsTest, FilesThatAreCutShortAreDataLoss) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})";
  EXPECT_THAT(Open(""), IsError(absl::StatusCode::kDataLoss, "too short"));
  EXPECT_THAT(Open("1234567"), IsError(absl::StatusCode::kDataLoss, "too short"));
  EXPECT_THAT(Open(WithLength(100, header)), IsError(absl::StatusCode::kDataLoss, "cut short"));
  EXPECT_THAT(Open(File(header, "123")), IsError(absl::StatusCode::kDataLoss, "tensor a"));
  EXPECT_OK(Open(File(header, "1234")));
}

TEST_F(HostileSafetensorsTest, AHeaderBeyondTheLimitIsNotRead) {
  EXPECT_THAT(Open(WithLength(100'000'001, "{}")),
              IsError(absl::StatusCode::kInvalidArgument, "100000000"));
  EXPECT_THAT(Open(WithLength(~uint64_t{0}, "{}")),
              IsError(absl::StatusCode::kInvalidArgument, "more than the limit"));
}

struct BadHeader {
  const char* header;
  const char* data;
  const char* message;
};

TEST_F(HostileSafetensorsTest, HeadersThatDoNotHoldAreRefusedByName) {
  const BadHeader kCases[] = {
      {"", "", "not JSON"},
      {"[]", "", "no JSON object"},
      {"7", "", "no JSON object"},
      {R"({"a":)", "", "not JSON"},
      {R"({"a":7})", "", "tensor a: its entry is no object"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
       R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       "x", "'a' comes twice"},
      {R"({"a":{"dtype":"U8","shape":[[[1]]],"data_offsets":[0,1]}})", "x", "deeper than 3"},
      {R"({"a":{"shape":[1],"data_offsets":[0,1]}})", "x", "tensor a: no dtype"},
      {R"({"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", "x", "'F8_E4M3'"},
      {R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", "x", "no shape"},
      {R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", "x", "whole numbers"},
      {R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", "x", "whole numbers"},
      {R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", "x",
       "whole numbers"},
      {R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})",
       "x", "16 dimensions"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", "",
       "overflows"},
      {R"({"a":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}})", "",
       "overflows"},
      {R"({"a":{"dtype":"U8","shape":[1]}})", "x", "data_offsets"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", "x", "data_offsets"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}})", "x", "data_offsets"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", "x", "do not hold the 1 bytes"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}})", "xxx", "do not hold the 4"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "xx", "a hole"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
       R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       "xxx", "tensor b: starts at 1, where the one before ends at 2: they overlap"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
       "xxxxx", "tensor b: byte"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "xyz", "2 bytes follow"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}})", "x", "'more'"},
  };
  for (const BadHeader& bad : kCases) {
    EXPECT_THAT(Open(File(bad.header, bad.data)),
                IsError(absl::StatusCode::kInvalidArgument, bad.message))
        << bad.header;
    EXPECT_THAT(Open(File(bad.header, bad.data)),
                IsError(absl::StatusCode::kInvalidArgument, "model.safetensors"));
  }
}

TEST_F(HostileSafetensorsTest, DeepNestingIsRefusedWithoutDescendingIntoIt) {
  EXPECT_THAT(Open(File(std::string(1'000'000, '['), "")),
              IsError(absl::StatusCode::kInvalidArgument, "deeper"));
}

TEST_F(HostileSafetensorsTest, MetadataIsPassedOver) {
  EXPECT_OK(Open(File(R"({"__metadata__":{"format":"pt"}})", "")));
}

TEST_F(HostileSafetensorsTest, WhatIsNoFileIsRefusedAtOnce) {
  ASSERT_EQ(::mkfifo((folder_ / "model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(Checkpoint::Open(folder_.path()),
              IsError(absl::StatusCode::kInvalidArgument, "not a regular file"));
}

// Every single-byte change of a small file is either refused or leaves every tensor within the
// file.
TEST_F(HostileSafetensorsTest, NoChangedByteMakesATensorLeaveTheFile) {
  const std::string good = File(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})",
                                "12345678abc");
  ASSERT_OK(Open(good));
  for (size_t i = 0; i < good.size(); ++i) {
    for (const char change : {'\x01', '\x10', '\x80', '\x04'}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ change);
      ASSERT_OK(WriteFileAtomically(folder_ / "model.safetensors", bad));
      const auto checkpoint = Checkpoint::Open(folder_.path());
      if (!checkpoint.ok()) continue;
      for (const std::string& name : (*checkpoint)->names()) {
        ASSERT_OK_AND_ASSIGN(const TensorView tensor, (*checkpoint)->Find(name));
        int sum = 0;
        for (const std::byte byte : tensor.bytes) sum += static_cast<int>(byte);
        EXPECT_GE(sum, 0);
      }
    }
  }
}

}  // namespace
}  // namespace assay::engine
