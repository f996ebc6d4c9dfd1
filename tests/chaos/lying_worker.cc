#include "tests/chaos/lying_worker.h"

#include <absl/time/clock.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "assay/v1/worker_service.grpc.pb.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/ids.h"
#include "base/status.h"
#include "coordinator/api/limits.h"
#include "storage/sqlite/connection.h"
#include "storage/text/text_codec.h"
#include "tests/testing/worker_messages.h"

namespace assay::chaos {
namespace {

using storage::sqlite::Connection;
using storage::sqlite::Row;
using storage::sqlite::Statement;

constexpr char kName[] = "liar";
constexpr absl::Duration kPatience = absl::Minutes(1);
constexpr absl::Duration kOthersPatience = absl::Seconds(2);

// A unit as the database knows it, more than any worker does.
struct KnownUnit {
  v1::UnitKey key;
  int64_t epoch = 0;
  std::string lease_id;
  uint64_t seed = 0;
};

// The first unit that `condition` (SQL over u and l) holds for.
std::optional<KnownUnit> FindUnit(const std::string& database, const std::string& condition) {
  const auto connection = Connection::OpenReader(database);
  if (!connection.ok()) return std::nullopt;
  absl::StatusOr<Statement> find =
      (*connection)
          ->Prepare(
              "SELECT u.cell_id, u.item_index, u.repeat, u.epoch, l.public_id, c.sampling_seed, "
              "b.name,"
              "   i.name"
              " FROM unit AS u JOIN lease AS l ON l.id = u.lease_id JOIN cell AS c ON c.id = "
              "u.cell_id"
              " JOIN benchmark AS b ON b.id = c.benchmark_id"
              " JOIN item AS i ON i.benchmark_id = b.id AND i.item_index = u.item_index"
              " WHERE " +
              condition + " LIMIT 1");
  if (!find.ok() || !find->Step().value_or(false)) return std::nullopt;
  int64_t cell_id = 0;
  int32_t item_index = 0;
  int32_t repeat = 0;
  int64_t sampling_seed = 0;
  std::string benchmark;
  std::string item;
  KnownUnit unit;
  Row(*find).Read(&cell_id, &item_index, &repeat, &unit.epoch, &unit.lease_id, &sampling_seed,
                  &benchmark, &item);
  unit.key.set_cell_id(cell_id);
  unit.key.set_item_index(item_index);
  unit.key.set_repeat(repeat);
  unit.seed = Hash64({"assay-unit-seed-1", std::to_string(sampling_seed), benchmark, item,
                      std::to_string(repeat)});
  return unit;
}

v1::Sample WrongAnswer(const KnownUnit& unit) {
  return testing::MakeSample(unit.key, unit.lease_id, unit.epoch, unit.seed, "a lie");
}

class Liar {
 public:
  explicit Liar(ChaosSystem* system) : system_(system) {
    grpc::SslCredentialsOptions tls;
    const std::string certificate = system->liar_certificate();
    tls.pem_root_certs = ReadFile(system->certificates().ca()).value_or("");
    tls.pem_cert_chain = ReadFile(certificate).value_or("");
    tls.pem_private_key = ReadFile(testing::Certificates::KeyOf(certificate)).value_or("");
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxSendMessageSize(64 << 20);
    stub_ = v1::WorkerService::NewStub(
        grpc::CreateCustomChannel(system->address(), grpc::SslCredentials(tls), arguments));
  }

  Lies Visit() {
    LieAboutName();
    LieAboutJobs();
    // Hello, and then silence after the last lie: its lease is not given back.
    if (const std::optional<v1::Grant> grant = TakeALease(); grant && grant->units_size() > 0) {
      const v1::Unit& unit = grant->units(0);
      const KnownUnit own = {unit.key(), unit.epoch(), grant->lease_id(), unit.seed()};
      LieAboutOwnUnit(own);
      LieAboutOthers(own);
      Leave();
      ReportUnderStaleLease(own);
    }
    Leave();
    return std::move(lies_);
  }

 private:
  void Note(const std::string& lie, bool refused, const std::string& answer) {
    if (refused) {
      ++lies_.refused[lie];
    } else {
      lies_.believed.push_back(lie + ": answered " + answer);
    }
  }
  static std::string Describe(const grpc::Status& status) {
    return fmt::format("code {} ({})", static_cast<int>(status.error_code()),
                       status.error_message());
  }

  grpc::Status Report(const v1::ReportSamplesRequest& request,
                      v1::ReportSamplesResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    context.set_wait_for_ready(true);
    return stub_->ReportSamples(&context, request, response);
  }
  v1::ReportSamplesRequest RequestOf(const v1::Sample& sample) const {
    v1::ReportSamplesRequest request;
    request.set_worker_id(kName);
    request.set_incarnation(incarnation_);
    *request.add_samples() = sample;
    return request;
  }
  // The call itself must be refused.
  void MustRefuse(const std::string& lie, const v1::ReportSamplesRequest& request,
                  grpc::StatusCode code) {
    v1::ReportSamplesResponse response;
    const grpc::Status status = Report(request, &response);
    Note(lie, status.error_code() == code, Describe(status));
  }
  void MustRefuse(const std::string& lie, const v1::Sample& sample) {
    MustRefuse(lie, RequestOf(sample), grpc::StatusCode::INVALID_ARGUMENT);
  }
  // The call is in order, but the sample must not be stored.
  void MustFence(const std::string& lie, const v1::Sample& sample) {
    v1::ReportSamplesResponse response;
    const grpc::Status status = Report(RequestOf(sample), &response);
    Note(lie, IsFenced(status, response), Describe(status, response));
  }
  // The call must be refused as long as the lease runs; when it has just ended, what comes under it
  // is late, and not stored.
  void MustRefuseWhileLeased(const std::string& lie, const KnownUnit& leased) {
    v1::ReportSamplesResponse response;
    const grpc::Status status = Report(RequestOf(WrongAnswer(leased)), &response);
    const std::string running =
        fmt::format("SELECT count(*) FROM lease WHERE public_id = '{}' AND ended_time_us IS NULL",
                    leased.lease_id);
    Note(lie,
         status.error_code() == grpc::StatusCode::INVALID_ARGUMENT ||
             (IsFenced(status, response) && system_->QueryInteger(running) == 0),
         Describe(status, response));
  }
  static bool IsFenced(const grpc::Status& status, const v1::ReportSamplesResponse& response) {
    return status.ok() && response.outcomes_size() == 1 &&
           (response.outcomes(0) == v1::ReportSamplesResponse::OUTCOME_FENCED ||
            response.outcomes(0) == v1::ReportSamplesResponse::OUTCOME_DUPLICATE);
  }
  static std::string Describe(const grpc::Status& status,
                              const v1::ReportSamplesResponse& response) {
    if (!status.ok() || response.outcomes_size() != 1) return Describe(status);
    return v1::ReportSamplesResponse::Outcome_Name(response.outcomes(0));
  }

  static v1::SyncRequest HelloOf(const std::string& worker_id, const std::string& incarnation) {
    v1::SyncRequest request;
    v1::Hello* hello = request.mutable_hello();
    hello->set_worker_id(worker_id);
    hello->set_incarnation(incarnation);
    hello->set_version("0.1.0");
    hello->set_protocol_revision(coordinator::kProtocolRevision);
    hello->mutable_provenance()->set_device("a liar");
    v1::Slot* slot = hello->add_slots();
    slot->set_index(0);
    slot->set_tensor_parallel_size(1);
    return request;
  }
  static v1::SyncRequest Heartbeat() {
    v1::SyncRequest request;
    v1::SlotState* slot = request.mutable_heartbeat()->add_slots();
    slot->set_index(0);
    slot->set_phase(v1::SlotState::PHASE_IDLE);
    slot->set_num_free_lanes(4);
    return request;
  }

  void LieAboutName() {
    {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
      context.set_wait_for_ready(true);
      const auto stream = stub_->Sync(&context);
      stream->Write(HelloOf("w1", incarnation_));
      v1::SyncResponse response;
      while (stream->Read(&response)) {
      }
      const grpc::Status status = stream->Finish();
      Note("hello as another worker", status.error_code() == grpc::StatusCode::PERMISSION_DENIED,
           Describe(status));
    }
    v1::ReportSamplesRequest request;
    request.set_worker_id("w1");
    request.set_incarnation(incarnation_);
    MustRefuse("report as another worker", request, grpc::StatusCode::PERMISSION_DENIED);
  }

  void LieAboutJobs() {
    v1::CompleteJobRequest request;
    request.set_worker_id(kName);
    request.set_incarnation(incarnation_);
    request.set_job_id(1);
    request.set_epoch(1);
    request.set_error("it cannot be done");
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    v1::CompleteJobResponse response;
    const grpc::Status status = stub_->CompleteJob(&context, request, &response);
    Note("end another worker's job", status.error_code() == grpc::StatusCode::FAILED_PRECONDITION,
         Describe(status));

    grpc::ClientContext upload_context;
    upload_context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    v1::UploadArtifactResponse uploaded;
    const auto writer = stub_->UploadArtifact(&upload_context, &uploaded);
    v1::UploadArtifactRequest part;
    part.mutable_header()->set_artifact_key(std::string(64, 'a'));
    writer->Write(part);
    writer->WritesDone();
    const grpc::Status upload = writer->Finish();
    Note("upload an artifact that is not its work",
         upload.error_code() == grpc::StatusCode::PERMISSION_DENIED, Describe(upload));
  }

  // An honest start, as far as anybody can see.
  std::optional<v1::Grant> TakeALease() {
    context_ = std::make_unique<grpc::ClientContext>();
    stream_ = stub_->Sync(context_.get());
    stream_->Write(HelloOf(kName, incarnation_));
    reader_ = std::thread([this] {
      v1::SyncResponse response;
      while (stream_->Read(&response)) {
        const std::lock_guard lock(mutex_);
        if (response.has_grant() && !grant_) grant_ = response.grant();
      }
    });
    const auto granted = [this] {
      const std::lock_guard lock(mutex_);
      return grant_.has_value();
    };
    const absl::Time deadline = absl::Now() + kPatience / 3;
    while (!granted() && absl::Now() < deadline && stream_->Write(Heartbeat())) {
      absl::SleepFor(absl::Milliseconds(100));
    }
    const std::lock_guard lock(mutex_);
    return grant_;
  }
  void Leave() {
    if (!reader_.joinable()) return;
    context_->TryCancel();
    reader_.join();
    (void)stream_->Finish();
  }

  void LieAboutOwnUnit(const KnownUnit& own) {
    const v1::Sample base = WrongAnswer(own);
    const auto with = [&base](const std::function<void(v1::Sample*)>& change) {
      v1::Sample sample = base;
      change(&sample);
      return sample;
    };
    MustRefuse("another seed", with([](v1::Sample* s) { s->set_seed(s->seed() + 1); }));
    MustRefuse("an item that is not there",
               with([](v1::Sample* s) { s->mutable_unit()->set_item_index(1 << 20); }));
    MustRefuse("a negative count", with([](v1::Sample* s) { s->set_completion_tokens(-3); }));
    MustRefuse("more tokens than the limit",
               with([](v1::Sample* s) { s->set_completion_tokens(1 << 20); }));
    MustRefuse("another count than ids", with([](v1::Sample* s) { s->set_completion_tokens(4); }));
    MustRefuse("more thinking than tokens", with([](v1::Sample* s) { s->set_thinking_tokens(4); }));
    MustRefuse("no finish reason",
               with([](v1::Sample* s) { s->set_finish_reason(v1::FINISH_REASON_UNSPECIFIED); }));
    MustRefuse("a text that cannot be unpacked",
               with([](v1::Sample* s) { s->set_text_zstd("no zstd frame"); }));
    MustRefuse("oversized text",
               with([](v1::Sample* s) { s->set_text_zstd(std::string(size_t{9} << 20, 'x')); }));
    MustRefuse("a message beyond the limit", RequestOf(with([](v1::Sample* s) {
                 s->set_text_zstd(std::string(size_t{17} << 20, 'x'));
               })),
               grpc::StatusCode::RESOURCE_EXHAUSTED);
    v1::ReportSamplesRequest many = RequestOf(base);
    for (int i = 0; i < 32; ++i) *many.add_samples() = base;
    MustRefuse("too many samples", many, grpc::StatusCode::INVALID_ARGUMENT);
    MustFence("an epoch to come", with([](v1::Sample* s) { s->set_epoch(s->epoch() + 1); }));
    const int64_t other_cell = system_->QueryInteger(
        fmt::format("SELECT id FROM cell WHERE id <> {} LIMIT 1", own.key.cell_id()));
    MustFence("the wrong cell",
              with([&](v1::Sample* s) { s->mutable_unit()->set_cell_id(other_cell); }));
  }

  void LieAboutOthers(const KnownUnit& own) {
    // Others are between two leases, or there is nothing left for them.
    std::optional<KnownUnit> leased;
    lies_.told_all = testing::WaitUntil(
        [&] {
          leased = FindUnit(system_->database(),
                            "u.state = 2 AND l.worker_id <> 'liar' AND l.ended_time_us IS NULL");
          return leased.has_value();
        },
        kOthersPatience);
    if (leased) {
      MustRefuseWhileLeased("another worker's lease", *leased);
      KnownUnit under_own = *leased;
      under_own.lease_id = own.lease_id;
      MustFence("another worker's unit", WrongAnswer(under_own));
      // Failures of units that it does not hold must not count, however often they are said.
      v1::SyncRequest request = Heartbeat();
      v1::UnitFailure* failure = request.mutable_heartbeat()->add_failures();
      failure->set_lease_id(leased->lease_id);
      *failure->mutable_unit() = leased->key;
      failure->set_epoch(leased->epoch);
      failure->set_message(kLiarsFailure);
      v1::LeaseProgress* progress = request.mutable_heartbeat()->add_leases();
      progress->set_lease_id(leased->lease_id);
      progress->set_tokens_generated(1 << 20);
      for (int i = 0; i < 3; ++i) stream_->Write(request);
      ++lies_.refused["another worker's failure"];  // the round looks for it at its end
    }
    // Under a lease that still runs it would be another worker's lease once more.
    const auto done = FindUnit(system_->database(), "u.state = 3 AND l.ended_time_us IS NOT NULL");
    if (done) {
      MustFence("a stored sample's place", WrongAnswer(*done));
      KnownUnit under_own = *done;
      under_own.lease_id = own.lease_id;
      MustFence("a stored sample's place under its own lease", WrongAnswer(under_own));
    }
  }

  // Its lease lapses in silence, its units go to others; only then does it answer.
  void ReportUnderStaleLease(const KnownUnit& own) {
    const std::string moved_on = fmt::format(
        "SELECT count(*) FROM unit WHERE cell_id = {} AND item_index = {} AND repeat = {}"
        " AND epoch > {}",
        own.key.cell_id(), own.key.item_index(), own.key.repeat(), own.epoch);
    const bool moved =
        testing::WaitUntil([&] { return system_->QueryInteger(moved_on) == 1; }, 2 * kPatience);
    if (!moved) {
      lies_.believed.push_back("silence: its lease never went to another worker");
      return;
    }
    MustFence("a stale lease", WrongAnswer(own));
  }

  ChaosSystem* const system_;
  const std::string incarnation_ = RandomId("liar");
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  Lies lies_;

  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SyncRequest, v1::SyncResponse>> stream_;
  std::thread reader_;
  std::mutex mutex_;
  std::optional<v1::Grant> grant_;
};

}  // namespace

Lies TellLies(ChaosSystem* system) { return Liar(system).Visit(); }

}  // namespace assay::chaos
