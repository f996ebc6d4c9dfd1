// A worker of the protocol revision before this one, as bytes: field numbers and types as they were
// then, written and read here by hand, so that a change to the .proto files cannot change the
// worker with them.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>

#include <bit>
#include <map>
#include <string>
#include <vector>

#include "assay/v1/sweep_service.grpc.pb.h"
#include "assay/v1/worker_service.grpc.pb.h"
#include "base/file.h"
#include "coordinator/api/limits.h"
#include "coordinator/api/server.h"
#include "storage/text/text_codec.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::coordinator {
namespace {

using ::testing::HasSubstr;

// A protobuf message by hand.
class Raw {
 public:
  Raw& Number(int field, uint64_t value) {
    Varint(static_cast<uint64_t>(field) << 3);
    Varint(value);
    return *this;
  }
  Raw& Double(int field, double value) {
    Varint(static_cast<uint64_t>(field) << 3 | 1);
    const auto bits = std::bit_cast<uint64_t>(value);
    for (int shift = 0; shift < 64; shift += 8) bytes_ += static_cast<char>(bits >> shift);
    return *this;
  }
  Raw& Text(int field, const std::string& value) {
    Varint(static_cast<uint64_t>(field) << 3 | 2);
    Varint(value.size());
    bytes_ += value;
    return *this;
  }
  Raw& Message(int field, const Raw& value) { return Text(field, value.bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  void Varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

// What an old reader finds in a message: it skips the fields it does not know.
class RawReader {
 public:
  explicit RawReader(const std::string& bytes) {
    for (size_t at = 0; at < bytes.size();) {
      const uint64_t tag = Varint(bytes, &at);
      const int field = static_cast<int>(tag >> 3);
      switch (tag & 7) {
        case 0:
          numbers_[field] = Varint(bytes, &at);
          break;
        case 1:
          at += 8;
          break;
        case 2: {
          const uint64_t size = Varint(bytes, &at);
          texts_[field].push_back(bytes.substr(at, size));
          at += size;
          break;
        }
        default:
          ADD_FAILURE() << "wire type " << (tag & 7);
          return;
      }
    }
  }
  bool Has(int field) const { return texts_.contains(field); }
  uint64_t Number(int field) const { return numbers_.contains(field) ? numbers_.at(field) : 0; }
  std::string Text(int field) const { return texts_.contains(field) ? texts_.at(field)[0] : ""; }
  RawReader Message(int field) const { return RawReader(Text(field)); }
  std::vector<std::string> All(int field) const {
    return texts_.contains(field) ? texts_.at(field) : std::vector<std::string>();
  }

 private:
  static uint64_t Varint(const std::string& bytes, size_t* at) {
    uint64_t value = 0;
    for (int shift = 0; *at < bytes.size(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes[(*at)++]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return value;
  }
  std::map<int, uint64_t> numbers_;
  std::map<int, std::vector<std::string>> texts_;
};

// Revision 1 had these: hello = 1, heartbeat = 2 of SyncRequest; the rest beside each line.
Raw HelloOfRevision(int revision) {
  return Raw().Message(1, Raw()
                              .Text(1, "old-worker")  // worker_id
                              .Text(2, "start-1")     // incarnation
                              .Text(3, "0.1.0")       // version
                              .Number(4, static_cast<uint64_t>(revision))
                              .Message(6, Raw().Text(5, "host").Text(6, "a CPU"))  // provenance
                              .Message(7, Raw().Number(1, 0).Number(2, 1)));       // a slot
}

Raw IdleHeartbeat() {
  return Raw().Message(2, Raw()
                              .Message(1, Raw().Number(2, 1).Number(6, 64))  // slot: idle, lanes
                              .Number(6, 1));                                // sequence
}

// The sample of one granted unit (its bytes in Grant.units).
Raw SampleOf(const std::string& lease_id, const RawReader& unit) {
  return Raw()
      .Text(1, unit.Text(1))
      .Text(2, lease_id)
      .Number(3, unit.Number(2))                                              // epoch
      .Text(4, storage::CompressText("\\boxed{1}"))                           // text_zstd
      .Text(5, storage::CompressTokenIds(std::vector<int32_t>{1, 2, 3}))      // token_ids_zstd
      .Text(6, std::string(32, 'p'))                                          // prompt_sha256
      .Number(7, 9)                                                           // prompt_tokens
      .Number(8, 3)                                                           // completion_tokens
      .Number(9, static_cast<uint64_t>(int64_t{-1}))                          // thinking_tokens
      .Number(10, 1)                                                          // finish_reason: stop
      .Number(11, unit.Number(3))                                             // seed
      .Number(14, 10)                                                         // e2e_us
      .Double(15, 1)                                                          // mean_batch_size
      .Number(16, 1'700'000'000'000'000)                                      // finished_time_us
      .Message(17, Raw().Text(1, "boxed_number").Text(2, "1").Number(3, 1));  // grade
}

class RevisionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(MakeDirectories(directory_ / "models/tiny"));
    ASSERT_OK(WriteFileAtomically(directory_ / "models/tiny/config.json", "{}"));
    ASSERT_OK(WriteFileAtomically(directory_ / "models/tiny/model.safetensors", "weights"));
    ASSERT_OK(MakeDirectories(directory_ / "benchmarks"));
    std::string items;
    for (int i = 0; i < 3; ++i) {
      items += fmt::format(R"({{"id": "item-{}", "question": "{}?", "answer": "1"}})", i, i) + "\n";
    }
    ASSERT_OK(WriteFileAtomically(directory_ / "benchmarks/arith500.jsonl", items));
    Server::Options options;
    options.data_dir = directory_ / "data";
    options.listen = "127.0.0.1:0";
    options.roots.models = {directory_ / "models"};
    options.roots.benchmarks = {directory_ / "benchmarks"};
    auto server = Server::Start(options, RealClock::Get());
    ASSERT_OK(server);
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(fmt::format("127.0.0.1:{}", server_->port()),
                                   grpc::InsecureChannelCredentials());
    workers_ = v1::WorkerService::NewStub(channel_);
  }

  // A sweep of three units.
  void Submit() {
    v1::SubmitSweepRequest request;
    request.set_spec_yaml(
        "name: small\nmodels: [{name: tiny}]\nbenchmarks: [{name: arith500}]\n"
        "sampling: {temperature: 0.6, top_p: 0.95, max_tokens: 512}\n");
    grpc::ClientContext context;
    v1::SubmitSweepResponse response;
    const auto stub = v1::SweepService::NewStub(channel_);
    const grpc::Status status = stub->SubmitSweep(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }

  static v1::SyncRequest Parse(const Raw& raw) {
    v1::SyncRequest request;
    EXPECT_TRUE(request.ParseFromString(raw.bytes()));
    return request;
  }

  assay::testing::TemporaryDirectory directory_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::WorkerService::Stub> workers_;
};

TEST_F(RevisionTest, AWorkerOfTheRevisionBeforeIsServedToTheEnd) {
  static_assert(kProtocolRevision == 2,
                "write down here what a worker of the revision before says");
  Submit();
  grpc::ClientContext context;
  const auto stream = workers_->Sync(&context);
  ASSERT_TRUE(stream->Write(Parse(HelloOfRevision(1))));
  ASSERT_TRUE(stream->Write(Parse(IdleHeartbeat())));
  size_t num_accepted = 0;
  bool is_welcome = false;
  v1::SyncResponse response;
  while (num_accepted < 3 && stream->Read(&response)) {
    const RawReader directive(response.SerializeAsString());
    if (directive.Has(1)) {
      is_welcome = true;
      EXPECT_GT(directive.Message(1).Number(1), 0u) << "heartbeat_interval_us";
      EXPECT_GT(directive.Message(1).Number(2), 0u) << "lease_ttl_us";
      EXPECT_GT(directive.Message(1).Number(3), 0u) << "max_unreported_samples";
      EXPECT_EQ(response.welcome().protocol_revision(), 1) << "the worker's, not the coordinator's";
    }
    if (!directive.Has(2)) continue;
    const RawReader grant = directive.Message(2);
    EXPECT_EQ(grant.Message(4).Text(1), "tiny");
    Raw report = Raw().Text(1, "old-worker").Text(2, "start-1");
    for (const std::string& unit : grant.All(8)) {
      EXPECT_NE(RawReader(unit).Text(4), "") << "user_text";
      report.Message(3, SampleOf(grant.Text(1), RawReader(unit)));
    }
    v1::ReportSamplesRequest request;
    ASSERT_TRUE(request.ParseFromString(report.bytes()));
    grpc::ClientContext report_context;
    v1::ReportSamplesResponse outcomes;
    const grpc::Status status = workers_->ReportSamples(&report_context, request, &outcomes);
    ASSERT_TRUE(status.ok()) << status.error_message();
    // Repeated enums travel packed: one byte each, 1 is accepted.
    EXPECT_EQ(RawReader(outcomes.SerializeAsString()).Text(1),
              std::string(grant.All(8).size(), '\1'));
    num_accepted += grant.All(8).size();
  }
  EXPECT_TRUE(is_welcome);
  EXPECT_EQ(num_accepted, 3u);
  context.TryCancel();
}

TEST_F(RevisionTest, OtherRevisionsAreRefusedNamingBothSides) {
  for (const int revision : {kProtocolRevision - 2, kProtocolRevision + 1}) {
    grpc::ClientContext context;
    const auto stream = workers_->Sync(&context);
    stream->Write(Parse(HelloOfRevision(revision)));
    v1::SyncResponse response;
    EXPECT_FALSE(stream->Read(&response));
    const grpc::Status status = stream->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_THAT(status.error_message(),
                HasSubstr(fmt::format("worker old-worker 0.1.0 speaks protocol revision {}, this "
                                      "coordinator",
                                      revision)));
    EXPECT_THAT(status.error_message(), HasSubstr("serves 1 to 2"));
    EXPECT_THAT(status.error_message(),
                HasSubstr(revision < 1 ? "update the worker" : "update the coordinator"));
  }
}

}  // namespace
}  // namespace assay::coordinator
