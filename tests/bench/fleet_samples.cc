#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "assay/v1/worker_service.grpc.pb.h"
#include "tests/bench/bench_clock.h"
#include "tests/bench/bench_worker.h"
#include "tests/bench/coordinator_process.h"
#include "tests/bench/fleet_bench.h"
#include "worker/agent/backoff.h"

namespace assay::bench {
namespace {

constexpr int kUnitsInFlight = 16384;  // of all connections
constexpr int kReportSamples = 32;

// One connection: a thread that reads grants and one that reports samples of them.
class Reporter {
 public:
  Reporter(const CoordinatorProcess& coordinator, int number, int num_lanes,
           const SampleBodies* bodies)
      : bodies_(bodies),
        num_lanes_(num_lanes),
        worker_id_(fmt::format("bench-{}", number)),
        stub_(v1::WorkerService::NewStub(coordinator.Connect())),
        stream_(stub_->Sync(&context_)) {
    v1::SyncRequest request;
    *request.mutable_hello() = MakeHello(worker_id_);
    stream_->Write(request);
    Ask();
    reader_ = std::thread([this] { ReadGrants(); });
    writer_ = std::thread([this] { Report(); });
  }
  ~Reporter() {
    Stop();
    reader_.join();
    writer_.join();
  }

  // Takes no more grants. All stop before the first is waited for: the others' load would delay it.
  void Stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    context_.TryCancel();
  }

  int64_t num_accepted() const {
    const std::lock_guard lock(mutex_);
    return num_accepted_;
  }
  int64_t num_refused() const {
    const std::lock_guard lock(mutex_);
    return num_refused_;
  }
  void AppendSeconds(std::vector<double>* seconds) const {
    const std::lock_guard lock(mutex_);
    seconds->insert(seconds->end(), seconds_.begin(), seconds_.end());
  }

 private:
  void Ask() {
    v1::SyncRequest request;
    *request.mutable_heartbeat() = MakeHeartbeat(num_lanes_);
    // Grants that come meanwhile are as good as finished: their samples wait to be reported. Said,
    // so that a lease which no heartbeat lists is not taken for one whose grant was lost.
    request.mutable_heartbeat()->set_num_spooled_samples(num_lanes_);
    stream_->Write(request);
  }

  void ReadGrants() {
    v1::SyncResponse response;
    while (stream_->Read(&response)) {
      if (!response.has_grant()) continue;
      const std::lock_guard lock(mutex_);
      grants_.push_back(response.grant());
      changed_.notify_all();
    }
  }

  void Report() {
    v1::ReportSamplesRequest request;
    request.set_worker_id(worker_id_);
    request.set_incarnation("1");
    size_t which = 0;
    while (true) {
      v1::Grant grant;
      bool last = false;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || !grants_.empty(); });
        if (stopping_) return;
        grant = std::move(grants_.front());
        grants_.pop_front();
        last = grants_.empty();
      }
      for (const v1::Unit& unit : grant.units()) {
        *request.add_samples() = MakeSample(grant, unit, *bodies_, which++);
        if (request.samples_size() < kReportSamples) continue;
        if (!Send(&request)) return;
      }
      if (!last) continue;
      // What is held back would keep its lanes, and its lease would run out.
      if (request.samples_size() > 0 && !Send(&request)) return;
      Ask();
    }
  }

  bool Send(v1::ReportSamplesRequest* request) {
    worker::Backoff backoff(absl::Milliseconds(200), absl::Seconds(10));  // a worker's
    const double start = Seconds();
    v1::ReportSamplesResponse response;
    while (true) {
      grpc::ClientContext context;
      const grpc::Status status = stub_->ReportSamples(&context, *request, &response);
      std::unique_lock lock(mutex_);
      if (stopping_) return false;
      if (status.ok()) break;
      ASSAY_CHECK(status.error_code() == grpc::StatusCode::UNAVAILABLE, "{}",
                  status.error_message());
      ++num_refused_;  // no room for more reports now
      changed_.wait_for(lock, absl::ToChronoMilliseconds(backoff.Next()),
                        [this] { return stopping_; });
      if (stopping_) return false;
    }
    const std::lock_guard lock(mutex_);
    for (const int outcome : response.outcomes()) {
      ASSAY_CHECK(outcome == v1::ReportSamplesResponse::OUTCOME_ACCEPTED, "outcome {}", outcome);
    }
    seconds_.push_back(Seconds() - start);
    num_accepted_ += response.outcomes_size();
    request->clear_samples();
    return true;
  }

  const SampleBodies* const bodies_;
  const int num_lanes_;
  const std::string worker_id_;
  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReaderWriter<v1::SyncRequest, v1::SyncResponse>> stream_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::Grant> grants_;  // guarded by mutex_, like the next four
  std::vector<double> seconds_;   // of each report
  int64_t num_accepted_ = 0;
  int64_t num_refused_ = 0;  // reports that had to be sent again
  bool stopping_ = false;
  std::thread reader_;
  std::thread writer_;
};

}  // namespace

void MeasureSamples(const SamplesOptions& options) {
  const CoordinatorProcess coordinator(
      options.dir, {"--max-calls-per-second", "1000000", "--log-level", "warn"});
  for (int seed = 0; seed < 16; ++seed) {
    coordinator.Submit(
        fmt::format("name: bench-{}\n"
                    "models: [{{name: tiny-qwen2-1m}}, {{name: tiny-llama-5m}}]\n"
                    "methods: [{{method: bf16, bits: 16-16-16}}]\n"
                    "benchmarks: [arith500]\nrepeats: 64\n"
                    "sampling: {{temperature: 0.6, max_tokens: 16384, seed: {}}}\n",
                    seed, seed));
  }
  const SampleBodies bodies = MakeBodies(64, static_cast<size_t>(options.text_bytes));
  std::vector<std::unique_ptr<Reporter>> reporters;
  const int num_lanes = std::max(32, kUnitsInFlight / options.num_connections);
  for (int i = 0; i < options.num_connections; ++i) {
    reporters.push_back(std::make_unique<Reporter>(coordinator, i, num_lanes, &bodies));
  }
  const auto count = [&] {
    int64_t sum = 0;
    for (const auto& reporter : reporters) sum += reporter->num_accepted();
    return sum;
  };
  std::this_thread::sleep_for(std::chrono::seconds(2));  // every connection is busy
  const int64_t before = count();
  const double wall = Seconds();
  const double own = CpuSeconds();
  const double theirs = coordinator.CpuSeconds();
  std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
  const auto num = static_cast<double>(count() - before);
  const double elapsed = Seconds() - wall;
  std::vector<double> seconds;
  for (const auto& reporter : reporters) reporter->AppendSeconds(&seconds);
  int64_t num_refused = 0;
  for (const auto& reporter : reporters) num_refused += reporter->num_refused();
  const double their_seconds = coordinator.CpuSeconds() - theirs;
  const double own_seconds = CpuSeconds() - own;
  for (const auto& reporter : reporters) reporter->Stop();
  fmt::print(
      "{} connections, texts of {} bytes packed to {}, ids to {}: {:.0f} durable samples/s\n"
      "a sample: {:.0f} us of the coordinator's CPU, {:.0f} us of this program's;"
      " cores used {:.2f} + {:.2f}\n"
      "a report of {}: p50 {:.0f} ms, p99 {:.0f} ms; {} sent again for want of room;"
      " coordinator's peak memory {} MiB\n",
      options.num_connections, options.text_bytes, bodies.texts_zstd[0].size(),
      bodies.token_ids_zstd[0].size(), num / elapsed, their_seconds * 1e6 / num,
      own_seconds * 1e6 / num, their_seconds / elapsed, own_seconds / elapsed, kReportSamples,
      Quantile(seconds, 0.5) * 1e3, Quantile(seconds, 0.99) * 1e3, num_refused,
      coordinator.PeakBytes() >> 20);
}

}  // namespace assay::bench
