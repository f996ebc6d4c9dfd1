#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "assay/v1/worker_service.grpc.pb.h"
#include "tests/bench/bench_clock.h"
#include "tests/bench/bench_worker.h"
#include "tests/bench/coordinator_process.h"
#include "tests/bench/fleet_bench.h"

namespace assay::bench {
namespace {

constexpr int kLeaseUnits = 16;

// What all workers measured.
struct Measured {
  std::mutex mutex;
  std::vector<double> sync_s;    // heartbeat written -> acknowledgement read
  std::vector<double> report_s;  // ReportSamples
  int num_ready = 0;             // workers with a lease
  bool counting = false;
};

// One worker on a connection of its own. Sync() and the callbacks come from several threads.
class SyncingWorker final : public grpc::ClientBidiReactor<v1::SyncRequest, v1::SyncResponse> {
 public:
  SyncingWorker(const CoordinatorProcess& coordinator, int number, const SampleBodies* bodies,
                Measured* measured)
      : bodies_(bodies),
        measured_(measured),
        worker_id_(fmt::format("bench-{}", number)),
        stub_(v1::WorkerService::NewStub(coordinator.Connect())) {
    stub_->async()->Sync(&context_, this);
    *request_.mutable_hello() = MakeHello(worker_id_);
    writing_ = true;
    StartWrite(&request_);
    StartRead(&response_);
    AddHold();
    StartCall();
  }

  // A heartbeat, which carries a failure long settled: the coordinator answers it after its commit.
  // `reports`: first the samples of the lease, then a heartbeat that asks for the next.
  void Sync(bool reports) {
    const std::lock_guard lock(mutex_);
    if (closed_ || sent_at_ != 0) return;  // the last is still under way: it counts as slow
    if (reports && !grants_.empty()) {
      StartReport();
      return;
    }
    Beat();
  }

  void Close() {
    {
      const std::lock_guard lock(mutex_);
      if (closed_) return;
      closed_ = true;
    }
    context_.TryCancel();
    RemoveHold();
  }
  void WaitUntilDone() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_ && !reporting_; });
  }

  void OnWriteDone(bool) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (beat_waits_ && !closed_) Beat();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    {
      const std::lock_guard lock(mutex_);
      if (response_.has_grant()) {
        if (!ever_granted_) {
          const std::lock_guard all(measured_->mutex);
          ++measured_->num_ready;
        }
        ever_granted_ = true;
        grants_.push_back(response_.grant());
      } else if (response_.has_acknowledge() && sent_at_ != 0) {
        const std::lock_guard all(measured_->mutex);
        if (measured_->counting) measured_->sync_s.push_back(Seconds() - sent_at_);
        sent_at_ = 0;
      }
    }
    StartRead(&response_);
  }
  void OnDone(const grpc::Status&) override {
    const std::lock_guard lock(mutex_);
    done_ = true;
    changed_.notify_all();
  }

 private:
  void Beat() {  // mutex_ held
    beat_waits_ = writing_;
    if (writing_) return;
    request_.Clear();
    v1::Heartbeat* heartbeat = request_.mutable_heartbeat();
    *heartbeat = MakeHeartbeat(0);  // it may hold one lease of 16 units
    heartbeat->set_sequence(++sequence_);
    tokens_ += 80;
    for (const v1::Grant& grant : grants_) {
      v1::LeaseProgress* lease = heartbeat->add_leases();
      lease->set_lease_id(grant.lease_id());
      lease->set_tokens_generated(tokens_);
      lease->set_num_units_left(grant.units_size());
    }
    v1::UnitFailure* failure = heartbeat->add_failures();
    failure->set_lease_id("settled-long-ago");
    writing_ = true;
    sent_at_ = Seconds();
    StartWrite(&request_);
  }

  void StartReport() {  // mutex_ held
    reporting_ = true;
    report_.Clear();
    report_.set_worker_id(worker_id_);
    report_.set_incarnation("1");
    const v1::Grant& grant = grants_.front();
    for (const v1::Unit& unit : grant.units()) {
      *report_.add_samples() =
          MakeSample(grant, unit, *bodies_, static_cast<size_t>(report_.samples_size()));
    }
    report_context_ = std::make_unique<grpc::ClientContext>();
    const double start = Seconds();
    stub_->async()->ReportSamples(report_context_.get(), &report_, &outcomes_,
                                  [this, start](const grpc::Status& status) {
                                    const std::lock_guard lock(mutex_);
                                    reporting_ = false;
                                    changed_.notify_all();
                                    if (closed_) return;
                                    ASSAY_CHECK(status.ok(), "{}", status.error_message());
                                    {
                                      const std::lock_guard all(measured_->mutex);
                                      if (measured_->counting)
                                        measured_->report_s.push_back(Seconds() - start);
                                    }
                                    grants_.pop_front();
                                    Beat();
                                  });
  }

  const SampleBodies* const bodies_;
  Measured* const measured_;
  const std::string worker_id_;
  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  grpc::ClientContext context_;
  std::recursive_mutex mutex_;  // gRPC may call back within Start...
  std::condition_variable_any changed_;
  v1::SyncRequest request_;
  v1::SyncResponse response_;
  v1::ReportSamplesRequest report_;
  v1::ReportSamplesResponse outcomes_;
  std::unique_ptr<grpc::ClientContext> report_context_;
  std::deque<v1::Grant> grants_;
  bool ever_granted_ = false;
  int64_t sequence_ = 0;
  int64_t tokens_ = 0;
  double sent_at_ = 0;  // of the heartbeat under way; 0 is none
  bool writing_ = false;
  bool beat_waits_ = false;
  bool reporting_ = false;
  bool closed_ = false;
  bool done_ = false;
};

}  // namespace

void MeasureSync(const SyncOptions& options) {
  const CoordinatorProcess coordinator(
      options.dir, {"--max-calls-per-second", "1000000", "--log-level", "warn"});
  for (int seed = 0; seed < 8; ++seed) {
    coordinator.Submit(
        fmt::format("name: bench-{}\nmodels: [{{name: tiny-qwen2-1m}}]\n"
                    "methods: [{{method: bf16, bits: 16-16-16}}]\n"
                    "benchmarks: [arith500]\nrepeats: 64\n"
                    "sampling: {{temperature: 0.6, max_tokens: 16384, seed: {}}}\n",
                    seed, seed));
  }
  const SampleBodies bodies = MakeBodies(16, 8'000);
  Measured measured;
  std::vector<std::unique_ptr<SyncingWorker>> workers;
  for (int i = 0; i < options.num_workers; ++i) {
    workers.push_back(std::make_unique<SyncingWorker>(coordinator, i, &bodies, &measured));
  }
  // Each worker has a beat of its own; the first asks for a lease.
  const double step = options.interval_s / options.num_workers;
  const int64_t beats_per_lease =
      std::max<int64_t>(1, static_cast<int64_t>(options.lease_s / options.interval_s));
  const double warm_up = 3 * options.interval_s;
  const double start = Seconds();
  double own = 0;
  double theirs = 0;
  int64_t num_syncs = 0;
  for (int64_t n = 0;; ++n) {
    const double due = start + static_cast<double>(n) * step;
    if (due - start > warm_up + options.seconds) break;
    if (const double wait = due - Seconds(); wait > 0) {
      std::this_thread::sleep_for(std::chrono::duration<double>(wait));
    }
    if (due - start > warm_up && num_syncs++ == 0) {
      const std::lock_guard lock(measured.mutex);
      measured.counting = true;
      own = CpuSeconds();
      theirs = coordinator.CpuSeconds();
    }
    const int64_t which = n % options.num_workers;
    const int64_t beat = n / options.num_workers;
    workers[static_cast<size_t>(which)]->Sync((beat + which) % beats_per_lease == 0 && beat > 0);
  }
  std::this_thread::sleep_for(std::chrono::seconds(1));  // the last answers
  {
    const std::lock_guard lock(measured.mutex);
    const double elapsed = options.seconds;
    fmt::print(
        "{} workers, a heartbeat each {:.0f} s, a report of {} samples each {:.0f} s, {} with a"
        " lease\n"
        "{} of {} heartbeats answered: p50 {:.1f} ms, p99 {:.1f} ms, worst {:.1f} ms\n"
        "{} reports: p50 {:.1f} ms, p99 {:.1f} ms\n"
        "cores used: coordinator {:.2f}, this program {:.2f}; coordinator's peak memory {} MiB\n",
        options.num_workers, options.interval_s, kLeaseUnits, options.lease_s, measured.num_ready,
        measured.sync_s.size(), num_syncs, Quantile(measured.sync_s, 0.5) * 1e3,
        Quantile(measured.sync_s, 0.99) * 1e3, Quantile(measured.sync_s, 1) * 1e3,
        measured.report_s.size(), Quantile(measured.report_s, 0.5) * 1e3,
        Quantile(measured.report_s, 0.99) * 1e3, (coordinator.CpuSeconds() - theirs) / elapsed,
        (CpuSeconds() - own) / elapsed, coordinator.PeakBytes() >> 20);
  }
  for (const auto& worker : workers) worker->Close();
  for (const auto& worker : workers) worker->WaitUntilDone();
}

}  // namespace assay::bench
