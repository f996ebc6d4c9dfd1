#include "worker/agent/spool.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::worker {
namespace {

namespace fs = std::filesystem;
using testing::IsError;
using testing::TemporaryDirectory;

constexpr absl::Duration kPatience = absl::Seconds(30);

class SpoolTest : public ::testing::Test {
 protected:
  std::unique_ptr<Spool> Open(Spool::Options options = {}) {
    options.directory = directory_.path();
    absl::StatusOr<std::unique_ptr<Spool>> spool = Spool::Open(options);
    EXPECT_OK(spool.status());
    return spool.ok() ? *std::move(spool) : nullptr;
  }

  // Everything takeable, in order.
  static std::vector<Spool::Record> TakeAll(Spool* spool) {
    return spool->Take(1000, int64_t{1} << 30, kPatience);
  }
  static std::vector<std::string> Bytes(const std::vector<Spool::Record>& records) {
    std::vector<std::string> bytes;
    for (const Spool::Record& record : records) bytes.push_back(record.bytes);
    return bytes;
  }
  static std::vector<int64_t> Ids(const std::vector<Spool::Record>& records) {
    std::vector<int64_t> ids;
    for (const Spool::Record& record : records) ids.push_back(record.id);
    return ids;
  }

  std::vector<std::string> SegmentFiles() const {
    std::vector<std::string> paths;
    for (const auto& entry : fs::directory_iterator(directory_.path())) {
      if (entry.path().extension() == ".spool") paths.push_back(entry.path().string());
    }
    std::sort(paths.begin(), paths.end());
    return paths;
  }

  // What a SIGKILL leaves: the files as they are, in another folder that nobody has locked.
  static void CopySegments(const std::vector<std::string>& files, const std::string& to) {
    for (const std::string& file : files) fs::copy(file, to);
  }

  TemporaryDirectory directory_;
};

TEST_F(SpoolTest, ChecksumsAreCrc32c) {
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);  // RFC 3720, appendix B.4
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
}

TEST_F(SpoolTest, WhatWasAddedIsTakenInOrderAndForgottenWhenRemoved) {
  const std::unique_ptr<Spool> spool = Open();
  for (const char* record : {"a", "b", "c"}) spool->Add(record);
  ASSERT_OK(spool->Flush());
  const std::vector<Spool::Record> taken = TakeAll(spool.get());
  EXPECT_EQ(Bytes(taken), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(spool->num_records(), 3);
  spool->Remove(Ids(taken));
  EXPECT_EQ(spool->num_records(), 0);
}

TEST_F(SpoolTest, ABatchHoldsAtMostTheRecordsAndBytesAskedForButAlwaysOne) {
  const std::unique_ptr<Spool> spool = Open();
  for (int i = 0; i < 5; ++i) spool->Add(std::string(100, 'x'));
  ASSERT_OK(spool->Flush());
  EXPECT_EQ(spool->Take(2, 1000, kPatience).size(), 2u);
  EXPECT_EQ(spool->Take(32, 150, kPatience).size(), 1u);
  EXPECT_EQ(spool->Take(32, 10, kPatience).size(), 1u);
}

TEST_F(SpoolTest, ReturnedRecordsAreTakenAgain) {
  const std::unique_ptr<Spool> spool = Open();
  spool->Add("a");
  const std::vector<Spool::Record> taken = TakeAll(spool.get());
  spool->Return(Ids(taken));
  EXPECT_EQ(Bytes(TakeAll(spool.get())), std::vector<std::string>{"a"});
}

TEST_F(SpoolTest, RecordsThatWereNotRemovedComeBackAfterARestart) {
  {
    const std::unique_ptr<Spool> spool = Open();
    for (const char* record : {"a", "b", "c"}) spool->Add(record);
    ASSERT_OK(spool->Flush());
    spool->Remove({spool->Take(1, 1000, kPatience).front().id});
  }
  const std::unique_ptr<Spool> spool = Open();
  const std::vector<std::string> replayed = Bytes(TakeAll(spool.get()));
  // "a" is stored elsewhere, but its segment lives on: it is reported twice, never lost.
  EXPECT_EQ(replayed, (std::vector<std::string>{"a", "b", "c"}));
}

TEST_F(SpoolTest, AddingWithoutFlushingIsDurableOnceTheSpoolIsClosed) {
  { Open()->Add("a"); }
  EXPECT_EQ(Open()->num_records(), 1);
}

TEST_F(SpoolTest, ACrashAtAnyByteLosesNoRecordThatWasWhole) {
  const std::vector<std::string> records = {"first", std::string(300, 's'), "third"};
  std::vector<size_t> ends;  // of each record in the file
  size_t end = 0;
  for (const std::string& record : records) ends.push_back(end += 8 + record.size());
  const TemporaryDirectory source;
  std::string content;
  {
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<SegmentWriter> writer,
                         SegmentWriter::Create(source / "whole"));
    ASSERT_OK(writer->Append({records.begin(), records.end()}));
    ASSERT_OK_AND_ASSIGN(content, ReadFile(source / "whole"));
  }
  ASSERT_EQ(content.size(), end);
  for (size_t kept = 0; kept <= content.size(); ++kept) {
    const std::string path = source / "torn";
    std::ofstream(path, std::ios::binary) << content.substr(0, kept);
    ASSERT_OK_AND_ASSIGN(const SegmentContent read, ReadSegment(path));
    const auto num_whole = static_cast<size_t>(
        std::count_if(ends.begin(), ends.end(), [&](size_t e) { return e <= kept; }));
    ASSERT_EQ(read.records.size(), num_whole) << kept;
    for (size_t i = 0; i < num_whole; ++i) ASSERT_EQ(read.records[i], records[i]);
    ASSERT_EQ(read.num_torn_bytes,
              static_cast<int64_t>(kept - (num_whole > 0 ? ends[num_whole - 1] : 0)));
  }
}

TEST_F(SpoolTest, AFlippedBitAnywhereNeverYieldsAnotherRecord) {
  const TemporaryDirectory source;
  std::string content;
  {
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<SegmentWriter> writer,
                         SegmentWriter::Create(source / "whole"));
    ASSERT_OK(writer->Append({"alpha", "beta"}));
    ASSERT_OK_AND_ASSIGN(content, ReadFile(source / "whole"));
  }
  for (size_t bit = 0; bit < content.size() * 8; ++bit) {
    std::string damaged = content;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    std::ofstream(source / "damaged", std::ios::binary) << damaged;
    ASSERT_OK_AND_ASSIGN(const SegmentContent read, ReadSegment(source / "damaged"));
    for (const std::string& record : read.records)
      EXPECT_TRUE(record == "alpha" || record == "beta");
    EXPECT_LT(read.records.size(), 2u);
  }
}

TEST_F(SpoolTest, ATornTailIsLeftAloneAndNewRecordsGoElsewhere) {
  const TemporaryDirectory crashed;
  {
    const std::unique_ptr<Spool> spool = Open();
    for (const char* record : {"a", "b"}) spool->Add(record);
    ASSERT_OK(spool->Flush());
    CopySegments(SegmentFiles(), crashed.path());
  }
  for (const auto& entry : fs::directory_iterator(crashed.path())) {
    fs::resize_file(entry.path(), fs::file_size(entry.path()) - 1);
  }
  ASSERT_OK_AND_ASSIGN(std::unique_ptr<Spool> spool, Spool::Open({.directory = crashed.path()}));
  EXPECT_EQ(spool->num_records(), 1);
  spool->Add("c");
  ASSERT_OK(spool->Flush());
  spool.reset();
  ASSERT_OK_AND_ASSIGN(spool, Spool::Open({.directory = crashed.path()}));
  EXPECT_EQ(Bytes(TakeAll(spool.get())), (std::vector<std::string>{"a", "c"}));
}

TEST_F(SpoolTest, SegmentsAreDeletedOnceAllTheirRecordsAreForgotten) {
  const std::unique_ptr<Spool> spool = Open({.segment_bytes = 100, .compact_bytes = 1});
  std::vector<int64_t> ids;
  for (int i = 0; i < 10; ++i) {
    spool->Add(std::string(60, 'x'));
    ASSERT_OK(spool->Flush());
    ids.push_back(TakeAll(spool.get()).front().id);
  }
  EXPECT_GE(SegmentFiles().size(), 5u);
  spool->Remove(ids);
  EXPECT_LE(SegmentFiles().size(), 1u);  // the one being written to
}

TEST_F(SpoolTest, AClosedSpoolWithNothingToReportLeavesNoSegment) {
  {
    const std::unique_ptr<Spool> spool = Open();
    spool->Add("a");
    ASSERT_OK(spool->Flush());
    spool->Remove(Ids(TakeAll(spool.get())));
  }
  EXPECT_TRUE(SegmentFiles().empty());
}

TEST_F(SpoolTest, AFolderHasOneUserAtATime) {
  const std::unique_ptr<Spool> spool = Open();
  EXPECT_THAT(Spool::Open({.directory = directory_.path()}),
              IsError(absl::StatusCode::kFailedPrecondition, "--spool of its own"));
}

TEST_F(SpoolTest, ForeignFilesAreLeftAlone) {
  std::ofstream(directory_ / "notes.txt") << "keep";
  std::ofstream(directory_ / "samples-.spool") << "keep";
  std::ofstream(directory_ / "samples-12x.spool") << "keep";
  std::ofstream(directory_ / "samples-000000000007.spool") << "not a record at all";
  {
    const std::unique_ptr<Spool> spool = Open();
    EXPECT_EQ(spool->num_records(), 0);
  }
  EXPECT_TRUE(fs::exists(directory_ / "notes.txt"));
  EXPECT_TRUE(fs::exists(directory_ / "samples-.spool"));
  EXPECT_TRUE(fs::exists(directory_ / "samples-12x.spool"));
}

TEST_F(SpoolTest, InterruptEndsAWaitingTake) {
  const std::unique_ptr<Spool> spool = Open();
  std::thread taker([&] { EXPECT_TRUE(spool->Take(1, 1, absl::Minutes(10)).empty()); });
  spool->Interrupt();
  taker.join();
}

// A file size limit refuses writes as a full disk does, in the middle of a record too.
TEST_F(SpoolTest, AFullDiskKeepsSamplesInMemoryReportableAndWritesThemWhenThereIsRoom) {
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, SIG_IGN);
  std::unique_ptr<Spool> spool = Open({.retry_interval = absl::Milliseconds(1)});
  spool->Add("fits");
  ASSERT_OK(spool->Flush());

  const struct rlimit full = {200, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
  spool->Add(std::string(500, 'x'));
  const absl::Status refused = spool->Flush();
  EXPECT_THAT(refused, IsError(absl::StatusCode::kUnavailable, "write failed"));
  EXPECT_EQ(spool->num_undurable(), 1);
  const std::vector<Spool::Record> taken = TakeAll(spool.get());
  EXPECT_EQ(taken.size(), 2u);  // reported from memory rather than not at all
  spool->Return(Ids(taken));

  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  spool->Add("later");
  while (!spool->Flush().ok()) {
  }
  EXPECT_EQ(spool->num_undurable(), 0);
  spool.reset();
  spool = Open();
  const std::vector<std::string> replayed = Bytes(TakeAll(spool.get()));
  EXPECT_EQ(replayed, (std::vector<std::string>{"fits", std::string(500, 'x'), "later"}));
}

// Nothing is left to write once all was reported from memory; a worker that takes no work until the
// disk is well must still learn that it is.
TEST_F(SpoolTest, ADiskThatIsWellAgainIsNoticedThoughEverythingWasReportedFromMemory) {
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, SIG_IGN);
  const std::unique_ptr<Spool> spool = Open({.retry_interval = absl::Milliseconds(1)});
  const struct rlimit full = {200, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
  spool->Add(std::string(500, 'x'));
  EXPECT_FALSE(spool->Flush().ok());
  spool->Remove(Ids(TakeAll(spool.get())));
  EXPECT_EQ(spool->num_records(), 0);
  EXPECT_FALSE(spool->health().ok());

  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_TRUE(testing::WaitUntil([&] { return spool->health().ok(); }, absl::Minutes(1)));
  spool->Add("later");
  EXPECT_OK(spool->Flush());
}

}  // namespace
}  // namespace assay::worker
