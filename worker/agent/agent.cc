#include "worker/agent/agent.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/ids.h"
#include "base/log.h"
#include "base/numerics_version.h"
#include "base/status.h"
#include "base/version.h"
#include "storage/text/text_codec.h"
#include "worker/wire/utf8.h"

namespace assay::worker {
namespace {

constexpr int kProtocolRevision = 2;
constexpr int kMaxFailuresPerHeartbeat = 256;
constexpr int kMaxUnitsPerGrant = 4096;
constexpr absl::Duration kPoll = absl::Milliseconds(20);

// What the agent knows by itself. Runners are of its own build unless somebody mixes builds, and
// their first word replaces this.
v1::Provenance ProvenanceWithoutRunner(bool has_gpus) {
  v1::Provenance provenance;
  provenance.set_backend(has_gpus ? "cuda" : "cpu");
  provenance.set_engine_numerics_version(has_gpus ? kCudaNumericsVersion : kCpuNumericsVersion);
  provenance.set_git_commit(GitCommit());
  provenance.set_assay_version(Version());
  provenance.set_build_type(BuildType());
  provenance.set_compiler(Compiler());
  char hostname[256] = {};
  if (::gethostname(hostname, sizeof hostname - 1) == 0) {
    provenance.set_hostname(ValidUtf8(hostname));
  }
  return provenance;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Agent>> Agent::Start(Options options) {
  std::unique_ptr<Agent> agent(new Agent(std::move(options)));
  ASSAY_RETURN_IF_ERROR(agent->Open());
  return agent;
}

Agent::Agent(Options options)
    : options_(std::move(options)), incarnation_(RandomId("incarnation")) {}

absl::Status Agent::Open() {
  ASSAY_ASSIGN_OR_RETURN(spool_, Spool::Open(options_.spool));
  ASSAY_ASSIGN_OR_RETURN(artifacts_, storage::ArtifactStore::Open(options_.artifacts_dir));
  client_ = std::make_unique<CoordinatorClient>(options_.coordinator, options_.tls);
  int64_t max_artifact_bytes = options_.max_artifact_bytes;
  if (max_artifact_bytes == kHalfOfTheDisk) {
    std::error_code error;
    const std::filesystem::space_info disk = std::filesystem::space(options_.artifacts_dir, error);
    max_artifact_bytes = error ? 0 : static_cast<int64_t>(disk.capacity / 2);
  }
  models_ = std::make_unique<ModelFinder>(options_.model_roots, artifacts_.get(), client_.get(),
                                          max_artifact_bytes);
  link_ = std::make_unique<CoordinatorLink>(
      client_.get(), CoordinatorLink::Options{},
      CoordinatorLink::Handlers{
          .hello = [this] { return MakeHello(); },
          .heartbeat = [this] { return MakeHeartbeat(); },
          .directive = [this](const v1::SyncResponse& response) { OnDirective(response); }});
  graders_ = std::make_unique<GraderPool>(options_.graders);
  const int num_slots =
      options_.gangs.empty() ? options_.num_slots : static_cast<int>(options_.gangs.size());
  for (int i = 0; i < num_slots; ++i) {
    Slot::Options slot = options_.slot;
    slot.index = i;
    if (!options_.gangs.empty()) {
      const GpuGang& gang = options_.gangs[static_cast<size_t>(i)];
      slot.runner.device = gang.device();
      slot.runner.environment.push_back(gang.environment());
    }
    slots_.push_back(std::make_unique<Slot>(slot, this));
  }
  reporter_ = std::make_unique<Reporter>(
      Reporter::Options{.worker_id = options_.worker_id, .incarnation = incarnation_},
      client_.get(), spool_.get(),
      Reporter::Handlers{.on_settled =
                             [this](const v1::Sample& sample) {
                               leases_.Settle(sample.lease_id(), sample.unit());
                               OnChange();
                             },
                         .on_refused = [this](const v1::Sample& sample,
                                              const std::string& why) { OnRefused(sample, why); }});
  // From here on directives come in, and everything they need is there.
  link_->Start();
  return absl::OkStatus();
}

Agent::~Agent() {
  Stop();
  if (drain_thread_.joinable()) drain_thread_.join();
  if (client_ != nullptr) client_->Shutdown();
  if (spool_ != nullptr) spool_->Interrupt();
  if (link_ != nullptr) link_->Stop();
  reporter_.reset();
  slots_.clear();
  graders_.reset();  // after the slots, which submit to it; its tasks add to the spool
  link_.reset();
  spool_.reset();
}

// Slots -------------------------------------------------------------------------------------------

absl::StatusOr<std::string> Agent::FindModel(int slot_index, const v1::ModelRef& model) {
  return models_->Find(model, fmt::format("slot {}", slot_index));
}

void Agent::OnSample(v1::Sample sample, const std::string& grader, const std::string& gold) {
  if (grader.empty()) return SpoolSample(sample);
  absl::StatusOr<std::string> text = storage::DecompressText(sample.text_zstd());
  if (!text.ok()) {
    v1::Grade* grade = sample.mutable_grade();
    grade->set_grader(grader);
    grade->set_verdict(v1::Grade::VERDICT_GRADER_ERROR);
    grade->set_detail(Message(text.status()));
    return SpoolSample(sample);
  }
  v1::GradeRequest request;
  request.set_grader(grader);
  request.set_gold(gold);
  request.set_response(ValidUtf8(*text));
  graders_->Submit(std::move(request), [this, sample = std::move(sample)](v1::Grade grade) mutable {
    *sample.mutable_grade() = std::move(grade);
    SpoolSample(sample);
  });
}

void Agent::SpoolSample(const v1::Sample& sample) {
  std::string bytes = sample.SerializeAsString();
  if (std::ssize(bytes) > Reporter::kMaxBatchBytes) {
    return OnRefused(sample, fmt::format("a sample of {} bytes: a report holds at most {}",
                                         bytes.size(), Reporter::kMaxBatchBytes));
  }
  spool_->Add(std::move(bytes));
  OnChange();
}

void Agent::OnRefused(const v1::Sample& sample, const std::string& why) {
  spdlog::error("{} cannot be reported: {}", Describe(sample.unit()), why);
  v1::UnitFailure failure;
  failure.set_lease_id(sample.lease_id());
  *failure.mutable_unit() = sample.unit();
  failure.set_epoch(sample.epoch());
  failure.set_message("the sample cannot be reported: " + why);
  OnFailure(std::move(failure));
}

void Agent::OnFailure(v1::UnitFailure failure) {
  failure.set_message(ValidUtf8(failure.message()));
  failures_.Add(std::move(failure));
  OnChange();
}

void Agent::OnTokens(const std::string& lease_id, const v1::UnitKey& unit, int64_t num_tokens) {
  leases_.SetTokens(lease_id, unit, num_tokens);
}

void Agent::OnRunnerStarted(const v1::Provenance& provenance) {
  {
    const std::lock_guard lock(mutex_);
    provenance_ = provenance;
  }
  changed_.notify_all();
}

void Agent::OnChange() {
  changed_.notify_all();
  link_->Notify();
}

// The conversation --------------------------------------------------------------------------------

v1::Provenance Agent::MakeProvenance() {
  v1::Provenance provenance;
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, absl::ToChronoMilliseconds(options_.provenance_wait),
                      [this] { return provenance_.has_value() || phase_ == Phase::kEnded; });
    provenance = provenance_.value_or(ProvenanceWithoutRunner(!options_.gangs.empty()));
  }
  if (!options_.gangs.empty()) {
    provenance.set_device(options_.gangs[0].gpus[0].name);  // all are of one kind
    provenance.set_driver_versions(options_.gpus->driver_versions());
  }
  return provenance;
}

v1::Hello Agent::MakeHello() {
  v1::Hello hello;
  hello.set_worker_id(options_.worker_id);
  hello.set_incarnation(incarnation_);
  hello.set_version(Version());
  hello.set_protocol_revision(kProtocolRevision);
  *hello.mutable_provenance() = MakeProvenance();
  for (size_t i = 0; i < slots_.size(); ++i) {
    v1::Slot* slot = hello.add_slots();
    slot->set_index(static_cast<int32_t>(i));
    slot->set_tensor_parallel_size(1);
    slot->set_memory_bytes(options_.slot.memory_bytes);
    slot->set_device(hello.provenance().device());
    if (options_.gangs.empty()) continue;
    const GpuGang& gang = options_.gangs[i];
    slot->set_tensor_parallel_size(static_cast<int32_t>(gang.gpus.size()));
    slot->set_device(gang.name());
    if (slot->memory_bytes() == 0) slot->set_memory_bytes(gang.memory_bytes());
  }
  return hello;
}

v1::Heartbeat Agent::MakeHeartbeat() {
  v1::Heartbeat heartbeat;
  for (size_t i = 0; i < slots_.size(); ++i) {
    v1::SlotState* state = heartbeat.add_slots();
    *state = slots_[i]->state();
    if (!options_.gangs.empty()) state->set_memory_used_bytes(MemoryUsed(options_.gangs[i]));
  }
  heartbeat.set_draining(!TakesWork());
  heartbeat.set_num_spooled_samples(NumUnreported());
  for (v1::LeaseProgress& progress : leases_.Progress()) {
    *heartbeat.add_leases() = std::move(progress);
  }
  int64_t sequence = 0;
  {
    const std::lock_guard lock(mutex_);
    sequence = ++sequence_;
  }
  heartbeat.set_sequence(sequence);
  for (v1::UnitFailure& failure : failures_.Collect(sequence, kMaxFailuresPerHeartbeat)) {
    *heartbeat.add_failures() = std::move(failure);
  }
  return heartbeat;
}

int64_t Agent::MemoryUsed(const GpuGang& gang) const {
  int64_t sum = 0;
  for (const Gpu& gpu : gang.gpus) {
    const absl::StatusOr<int64_t> used = options_.gpus->MemoryUsed(gpu);
    if (!used.ok()) return 0;
    sum += *used;
  }
  return sum;
}

// Samples that the coordinator has not answered for, wherever they are.
int Agent::NumUnreported() const { return spool_->num_records() + graders_->num_unfinished(); }

// No new leases while draining or while samples cannot be made durable.
bool Agent::TakesWork() const {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ != Phase::kWorking || NumUnreported() > max_unreported_samples_) return false;
  }
  return spool_->health().ok();
}

void Agent::OnDirective(const v1::SyncResponse& response) {
  switch (response.directive_case()) {
    case v1::SyncResponse::kWelcome:
      return OnWelcome(response.welcome());
    case v1::SyncResponse::kGrant:
      return OnGrant(response.grant());
    case v1::SyncResponse::kRevoke:
      return OnRevoke(response.revoke());
    case v1::SyncResponse::kDrain:
      spdlog::info("the coordinator asks this worker to finish and leave");
      return BeginDrain(std::nullopt);
    case v1::SyncResponse::kAcknowledge:
      for (const v1::UnitFailure& failure :
           failures_.Acknowledge(response.acknowledge().sequence())) {
        leases_.Settle(failure.lease_id(), failure.unit());
      }
      return OnChange();
    case v1::SyncResponse::kJob:
      return OnJobGrant(response.job());
    case v1::SyncResponse::kShutdown:
      return End(FailedPrecondition("the coordinator shut this worker down: {}",
                                    response.shutdown().reason()));
    case v1::SyncResponse::DIRECTIVE_NOT_SET:
      spdlog::warn("the coordinator sent a directive that this version does not know");
  }
}

void Agent::OnWelcome(const v1::Welcome& welcome) {
  {
    const std::lock_guard lock(mutex_);
    if (welcome.max_unreported_samples() > 0) {
      max_unreported_samples_ = welcome.max_unreported_samples();
    }
  }
  spdlog::info("connected to the coordinator (version {}) at {}", welcome.coordinator_version(),
               options_.coordinator);
  reporter_->Wake();
}

void Agent::OnGrant(const v1::Grant& grant) {
  if (!leases_.Add(grant)) return;
  std::string refusal;
  bool working = false;
  {
    const std::lock_guard lock(mutex_);
    working = phase_ == Phase::kWorking;
  }
  if (!working) {
    refusal = "the worker is stopping";
  } else if (grant.slot_index() < 0 || grant.slot_index() >= std::ssize(slots_)) {
    refusal = fmt::format("there is no slot {}", grant.slot_index());
  } else if (grant.units_size() > kMaxUnitsPerGrant) {
    refusal = fmt::format("a grant of {} units: at most {}", grant.units_size(), kMaxUnitsPerGrant);
  }
  if (refusal.empty()) {
    slots_[static_cast<size_t>(grant.slot_index())]->Enqueue(grant);
    return;
  }
  for (const v1::Unit& unit : grant.units()) {
    v1::UnitFailure failure;
    failure.set_lease_id(grant.lease_id());
    *failure.mutable_unit() = unit.key();
    failure.set_epoch(unit.epoch());
    failure.set_message(refusal);
    failure.set_infrastructure(true);
    OnFailure(std::move(failure));
  }
}

void Agent::OnRevoke(const v1::Revoke& revoke) {
  if (revoke.units().empty()) {
    leases_.Remove(revoke.lease_id());
  } else {
    for (const v1::UnitKey& unit : revoke.units()) leases_.Settle(revoke.lease_id(), unit);
  }
  for (const auto& slot : slots_) slot->Revoke(revoke);
  OnChange();
}

// The end -----------------------------------------------------------------------------------------

void Agent::Drain(absl::Duration grace) { BeginDrain(grace); }

void Agent::BeginDrain(std::optional<absl::Duration> grace) {
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::kWorking) return;
  phase_ = Phase::kDraining;
  drain_thread_ = std::thread([this, grace] { RunDrain(grace); });
}

void Agent::RunDrain(std::optional<absl::Duration> grace) {
  OnChange();
  if (grace.has_value()) {
    for (const auto& slot : slots_) slot->GiveBack(/*running=*/false);
  }
  if (!WaitUntil([this] { return AllSlotsIdle(); }, grace.value_or(absl::InfiniteDuration()))) {
    for (const auto& slot : slots_) slot->GiveBack(/*running=*/true);
    WaitUntil([this] { return AllSlotsIdle(); }, options_.flush_grace);
  }
  WaitUntil([this] { return graders_->num_unfinished() == 0; }, options_.flush_grace);
  WaitUntil([this] { return NumUnreported() == 0 && failures_.empty(); }, options_.flush_grace);
  if (const int left = NumUnreported(); left > 0) {
    spdlog::warn("{} samples stay in the spool for the next start", left);
  }
  End(absl::OkStatus());
}

bool Agent::AllSlotsIdle() const {
  return std::all_of(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->idle(); });
}

bool Agent::WaitUntil(const std::function<bool()>& condition, absl::Duration timeout) {
  const Clock& clock = *RealClock::Get();
  const absl::Duration deadline = clock.Monotonic() + timeout;
  while (!condition()) {
    std::unique_lock lock(mutex_);
    if (phase_ == Phase::kEnded || clock.Monotonic() >= deadline) return false;
    // Not everything that conditions look at announces itself, so this looks again by itself.
    changed_.wait_for(lock, absl::ToChronoMilliseconds(kPoll));
  }
  return true;
}

void Agent::Stop() { End(Cancelled("stopped")); }

void Agent::End(absl::Status status) {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == Phase::kEnded) return;
    phase_ = Phase::kEnded;
    end_status_ = std::move(status);
  }
  changed_.notify_all();
  // Whoever waits for the coordinator waits no longer; the rest is the destructor's.
  if (client_ != nullptr) client_->Shutdown();
  if (spool_ != nullptr) spool_->Interrupt();
}

bool Agent::finished() const {
  const std::lock_guard lock(mutex_);
  return phase_ == Phase::kEnded;
}

bool Agent::WaitFinished(absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, absl::ToChronoMilliseconds(timeout),
                           [this] { return phase_ == Phase::kEnded; });
}

absl::Status Agent::end_status() const {
  const std::lock_guard lock(mutex_);
  return end_status_;
}

}  // namespace assay::worker
