#include "worker/agent/reporter.h"

#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "worker/agent/unit_id.h"

namespace assay::worker {
namespace {

constexpr absl::Duration kIdleWait = absl::Seconds(1);

}  // namespace

Reporter::Reporter(Options options, CoordinatorClient* client, Spool* spool, Handlers handlers)
    : options_(std::move(options)),
      client_(client),
      spool_(spool),
      handlers_(std::move(handlers)),
      backoff_(options_.first_retry, options_.longest_retry) {
  thread_ = std::thread([this] { Run(); });
}

Reporter::~Reporter() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Reporter::Wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

void Reporter::Run() {
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
      woken_ = false;
    }
    const Batch batch = NextBatch();
    if (batch.empty()) continue;
    if (Report(batch)) {
      backoff_.Reset();
    } else {
      spool_->Return(batch.ids);  // those that were settled are gone and ignored
      WaitBeforeRetry();
    }
  }
}

Reporter::Batch Reporter::NextBatch() {
  Batch batch;
  batch.request.set_worker_id(options_.worker_id);
  batch.request.set_incarnation(options_.incarnation);
  for (const Spool::Record& record : spool_->Take(kMaxBatchSamples, kMaxBatchBytes, kIdleWait)) {
    v1::Sample sample;
    if (!sample.ParseFromString(record.bytes)) {
      spdlog::error("spool: a record of {} bytes is no sample; it is dropped", record.bytes.size());
      spool_->Remove({record.id});
      continue;
    }
    *batch.request.add_samples() = std::move(sample);
    batch.ids.push_back(record.id);
  }
  return batch;
}

bool Reporter::Report(const Batch& batch) {
  const absl::StatusOr<v1::ReportSamplesResponse> response = client_->ReportSamples(batch.request);
  if (response.ok()) return Settle(batch, *response);
  if (response.status().code() != absl::StatusCode::kInvalidArgument) {
    spdlog::debug("report: {}", Message(response.status()));
    return false;
  }
  if (batch.ids.size() > 1) return ReportOneByOne(batch);
  const v1::Sample& sample = batch.request.samples(0);
  spdlog::error("the coordinator refuses the sample of {}: {}", Describe(sample.unit()),
                Message(response.status()));
  spool_->Remove(batch.ids);
  handlers_.on_refused(sample, Message(response.status()));
  return true;
}

bool Reporter::ReportOneByOne(const Batch& batch) {
  bool all = true;
  for (size_t i = 0; i < batch.ids.size(); ++i) {
    Batch single;
    single.request.set_worker_id(options_.worker_id);
    single.request.set_incarnation(options_.incarnation);
    *single.request.add_samples() = batch.request.samples(static_cast<int>(i));
    single.ids.push_back(batch.ids[i]);
    all &= Report(single);
  }
  return all;
}

bool Reporter::Settle(const Batch& batch, const v1::ReportSamplesResponse& response) {
  if (response.outcomes_size() != batch.request.samples_size()) {
    spdlog::error("report: {} outcomes for {} samples; trying again", response.outcomes_size(),
                  batch.request.samples_size());
    return false;
  }
  bool all = true;
  std::vector<int64_t> settled;
  for (int i = 0; i < response.outcomes_size(); ++i) {
    const v1::Sample& sample = batch.request.samples(i);
    switch (response.outcomes(i)) {
      case v1::ReportSamplesResponse::OUTCOME_FENCED:
        spdlog::info("the sample of {} came too late: the unit belongs to another grant",
                     Describe(sample.unit()));
        [[fallthrough]];
      case v1::ReportSamplesResponse::OUTCOME_ACCEPTED:
      case v1::ReportSamplesResponse::OUTCOME_DUPLICATE:
        settled.push_back(batch.ids[static_cast<size_t>(i)]);
        handlers_.on_settled(sample);
        break;
      default:
        all = false;  // an outcome that this version does not know: keep the sample
    }
  }
  spool_->Remove(settled);
  return all;
}

void Reporter::WaitBeforeRetry() {
  const absl::Duration wait = backoff_.Next();
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoMilliseconds(wait), [this] { return stopping_ || woken_; });
}

}  // namespace assay::worker
