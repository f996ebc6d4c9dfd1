// What workers may say to a coordinator, true or not. Each line of the input is a message in text
// format behind its kind:
//
//   sync hello { worker_id: "w" ... }      report samples { ... }      job job_id: 1 ...      wait
//   60
//
// Whatever comes, the scheduler's invariants hold, and memory and database agree after a restart.
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <charconv>
#include <memory>

#include "assay/v1/worker_service.pb.h"
#include "base/log.h"
#include "base/status.h"
#include "coordinator/api/convert_worker.h"
#include "coordinator/api/limits.h"
#include "tests/fuzz/fuzz_folder.h"
#include "tests/testing/fake_clock.h"
#include "tests/unit/coordinator/control/control_harness.h"

namespace assay::coordinator {
namespace {

template <typename Message>
bool Parse(std::string_view text, Message* message) {
  google::protobuf::TextFormat::Parser parser;
  parser.SetRecursionLimit(20);
  struct Silent : google::protobuf::io::ErrorCollector {
    void AddError(int, int, const std::string&) override {}
  } silent;
  parser.RecordErrorsTo(&silent);
  return parser.ParseFromString(std::string(text), message);
}

class Conversation {
 public:
  explicit Conversation(const std::string& database) : database_(database) {
    for (const char* suffix : {"", "-wal", "-shm", ".lock"}) {
      ::unlink((database + suffix).c_str());
    }
    Open();
    Batch([](ControlPlane& plane) {
      ASSAY_CHECK(plane.HandleSubmit({testing::MakePlan(2, 40), "r", "ada", "spec"}).ok());
    });
  }

  void Say(std::string_view line) {
    const size_t space = line.find(' ');
    if (space == std::string_view::npos) return;
    const std::string_view kind = line.substr(0, space);
    const std::string_view text = line.substr(space + 1);
    if (kind == "sync") {
      v1::SyncRequest request;
      if (Parse(text, &request)) Sync(request);
    } else if (kind == "report") {
      v1::ReportSamplesRequest request;
      if (!Parse(text, &request) || !CheckReport(request).ok()) return;
      const absl::StatusOr<ReportCommand> command = FromProto(request);
      if (command.ok()) Batch([&](ControlPlane& plane) { (void)plane.HandleReport(*command); });
    } else if (kind == "job") {
      v1::CompleteJobRequest request;
      if (!Parse(text, &request) || !CheckCompleteJob(request).ok()) return;
      Batch([&](ControlPlane& plane) { (void)plane.HandleJobReport(FromProto(request)); });
    } else if (kind == "answer") {
      Answer(static_cast<size_t>(Number(text)));
    } else if (kind == "wait") {
      clock_.Advance(absl::Seconds(Number(text)));
      Batch([](ControlPlane& plane) { (void)plane.HandleTick(); });
    }
  }

  // As after a SIGKILL.
  void Restart() {
    const LiveSnapshot before = plane_->TakeSnapshot();
    plane_.reset();
    store_.reset();
    Open();
    const LiveSnapshot after = plane_->TakeSnapshot();
    for (const auto& [id, sweep] : before.sweeps) {
      ASSAY_CHECK(after.sweeps.at(id).num_done == sweep.num_done, "sweep {}", id);
    }
  }

 private:
  static int Number(std::string_view text) {
    int number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    return std::clamp(number, 0, 100'000);
  }

  void Answer(size_t which) {
    if (which >= grant_.units.size()) return;
    const ReportCommand command = {
        worker_, incarnation_, {testing::ControlHarness::MakeSample(grant_, grant_.units[which])}};
    Batch([&](ControlPlane& plane) { (void)plane.HandleReport(command); });
  }

  void Open() {
    auto store = storage::ControlStore::Open(database_);
    ASSAY_CHECK(store.ok(), "{}", Message(store.status()));
    store_ = *std::move(store);
    ControlPlane::Options options;
    options.make_id = [this](const std::string& prefix) {
      return prefix + "-" + std::to_string(++num_ids_);
    };
    auto plane = ControlPlane::Open(store_.get(), &clock_, options);
    ASSAY_CHECK(plane.ok(), "{}", Message(plane.status()));
    plane_ = *std::move(plane);
  }

  template <typename Work>
  void Batch(Work&& work) {
    ASSAY_CHECK(plane_->BeginBatch().ok());
    work(*plane_);
    const absl::Status committed = plane_->CommitBatch();
    ASSAY_CHECK(committed.ok(), "{}", Message(committed));
    for (const OutgoingMessage& message : plane_->TakeMessages()) {
      (void)ToProto(message, ControlPlane::Options());
      if (const auto* grant = std::get_if<GrantMessage>(&message.body)) grant_ = *grant;
    }
    const std::string broken = plane_->scheduler().CheckInvariants();
    ASSAY_CHECK(broken.empty(), "{}", broken);
  }

  void Sync(const v1::SyncRequest& request) {
    if (request.has_hello() && CheckHello(request.hello()).ok()) {
      worker_ = request.hello().worker_id();
      incarnation_ = request.hello().incarnation();
      Batch([&](ControlPlane& plane) { (void)plane.HandleHello(FromProto(request.hello())); });
    } else if (request.has_heartbeat() && !worker_.empty() &&
               CheckHeartbeat(request.heartbeat()).ok()) {
      Batch([&](ControlPlane& plane) {
        (void)plane.HandleHeartbeat(FromProto(request.heartbeat(), worker_, incarnation_));
      });
    }
  }

  const std::string database_;
  assay::testing::FakeClock clock_;
  int64_t num_ids_ = 0;
  std::string worker_;
  std::string incarnation_;
  GrantMessage grant_;
  std::unique_ptr<storage::ControlStore> store_;
  std::unique_ptr<ControlPlane> plane_;
};

}  // namespace
}  // namespace assay::coordinator

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const assay::fuzz::FuzzFolder folder;
  static const bool quiet = [] {
    spdlog::set_level(spdlog::level::off);
    return true;
  }();
  (void)quiet;
  assay::coordinator::Conversation conversation(folder.path() + "/assay.db");
  std::string_view input = assay::fuzz::AsText(data, size);
  for (int num_lines = 0; !input.empty() && num_lines < 32; ++num_lines) {
    const size_t end = std::min(input.find('\n'), input.size() - 1);
    conversation.Say(input.substr(0, end + (input[end] == '\n' ? 0 : 1)));
    input.remove_prefix(end + 1);
  }
  conversation.Restart();
  return 0;
}
