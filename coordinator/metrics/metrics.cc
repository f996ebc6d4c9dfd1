#include "coordinator/metrics/metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "base/version.h"
#include "coordinator/metrics/exposition.h"

namespace assay::coordinator {
namespace {

using Type = Exposition::Type;

double Real(int64_t value) { return static_cast<double>(value); }

void AddWork(const LiveSnapshot& live, const storage::StoreTotals& store, Exposition* out) {
  out->Gauge("assay_units_queued", "Units of active sweeps that wait for a slot",
             Real(live.num_units_queued));
  out->Gauge("assay_units_running", "Units of active sweeps that a worker holds",
             Real(live.num_units_running));
  out->Gauge("assay_cells_without_slot",
             "Cells of active sweeps that no slot here can hold: a larger worker is wanted",
             Real(live.num_cells_without_slot));
  int64_t num_leases = 0;
  for (const LiveWorker& worker : live.workers) num_leases += worker.num_leases;
  out->Gauge("assay_leases_open", "Leases that workers hold", Real(num_leases));
  out->Gauge("assay_units_quarantined", "Units set aside because they failed alone more than once",
             Real(store.num_quarantined));
  out->Gauge("assay_samples_stored", "Samples in the database", Real(store.num_samples));
  out->Family("assay_sweeps", Type::kGauge, "Sweeps by state");
  for (const auto& [state, name] : {std::pair(storage::SweepState::kActive, "active"),
                                    std::pair(storage::SweepState::kPaused, "paused"),
                                    std::pair(storage::SweepState::kCancelled, "cancelled"),
                                    std::pair(storage::SweepState::kDone, "done"),
                                    std::pair(storage::SweepState::kFailed, "failed")}) {
    const auto count = store.num_sweeps.find(state);
    out->Sample({{"state", name}}, count == store.num_sweeps.end() ? 0 : Real(count->second));
  }
}

void AddResults(const LiveSnapshot& live, Exposition* out) {
  const ControlCounters& counters = live.counters;
  out->Family("assay_samples_total", Type::kCounter,
              "Samples that workers reported, by what became of them");
  out->Sample({{"outcome", "accepted"}}, Real(counters.num_accepted));
  out->Sample({{"outcome", "duplicate"}}, Real(counters.num_duplicates));
  out->Sample({{"outcome", "fenced"}}, Real(counters.num_fenced));
  out->Gauge("assay_samples_per_second", "Samples stored per second, over the last ten seconds",
             live.samples_per_s);
  out->Counter("assay_leases_granted_total", "Leases given to workers",
               Real(counters.num_leases_granted));
  out->Counter("assay_leases_expired_total", "Leases that lapsed or were lost with their worker",
               Real(counters.num_leases_expired));
  out->Counter("assay_units_granted_total", "Units given to workers, again or for the first time",
               Real(counters.num_units_granted));
  out->Counter("assay_rerolls_total", "Units given a second time", Real(counters.num_rerolls));
  out->Counter("assay_unit_failures_total", "Failures of units that workers reported",
               Real(counters.num_unit_failures));
  out->Counter("assay_quarantines_total", "Units set aside", Real(counters.num_quarantined));
}

void AddStore(const LiveSnapshot& live, const storage::StoreTotals& store, Exposition* out) {
  out->Family("assay_commits_total", Type::kCounter, "Transactions of the control plane");
  out->Sample({{"outcome", "ok"}}, Real(live.counters.num_commits));
  out->Sample({{"outcome", "failed"}}, Real(live.counters.num_failed_commits));
  out->Family("assay_commit_seconds", Type::kHistogram,
              "Time of one commit, with what it decides: mostly the disk's");
  out->Histogram(live.commit_seconds);
  out->Family("assay_batch_size", Type::kHistogram, "Requests that shared one transaction");
  out->Histogram(live.batch_sizes);
  out->Gauge("assay_commands_waiting", "Requests that wait for the control plane",
             Real(static_cast<int64_t>(live.num_commands_waiting)));
  out->Gauge("assay_database_bytes", "Size of the database file", Real(store.database_bytes));
  out->Gauge("assay_wal_bytes", "Size of its write-ahead log", Real(store.wal_bytes));
}

// The workers that get series of their own: the ones last heard, in the order of their ids.
std::vector<const LiveWorker*> ListedWorkers(const LiveSnapshot& live) {
  std::vector<const LiveWorker*> workers;
  for (const LiveWorker& worker : live.workers) workers.push_back(&worker);
  if (workers.size() <= kMaxWorkers) return workers;
  std::stable_sort(workers.begin(), workers.end(), [](const LiveWorker* a, const LiveWorker* b) {
    if (a->online != b->online) return a->online;
    return a->silent_us < b->silent_us;
  });
  workers.resize(kMaxWorkers);
  std::sort(workers.begin(), workers.end(),
            [](const LiveWorker* a, const LiveWorker* b) { return a->worker_id < b->worker_id; });
  return workers;
}

void AddWorkers(const LiveSnapshot& live, Exposition* out) {
  int64_t num_online = 0;
  int64_t num_draining = 0;
  for (const LiveWorker& worker : live.workers) {
    if (worker.online) ++(worker.draining ? num_draining : num_online);
  }
  out->Family("assay_workers", Type::kGauge, "Workers by state, of those seen since the start");
  out->Sample({{"state", "online"}}, Real(num_online));
  out->Sample({{"state", "draining"}}, Real(num_draining));
  out->Sample({{"state", "offline"}},
              Real(static_cast<int64_t>(live.workers.size()) - num_online - num_draining));
  out->Gauge("assay_tokens_per_second", "Tokens generated per second by all workers",
             live.tokens_per_s);

  const std::vector<const LiveWorker*> workers = ListedWorkers(live);
  const auto each = [&](std::string_view name, Type type, std::string_view help, auto value) {
    out->Family(name, type, help);
    for (const LiveWorker* worker : workers) {
      out->Sample({{"worker", worker->worker_id}}, static_cast<double>(value(*worker)));
    }
  };
  each("assay_worker_up", Type::kGauge, "1 while the worker's heartbeats arrive",
       [](const LiveWorker& worker) { return worker.online ? 1 : 0; });
  each("assay_worker_silent_seconds", Type::kGauge, "Since the worker was last heard",
       [](const LiveWorker& worker) { return Real(worker.silent_us) / 1e6; });
  each("assay_worker_tokens_per_second", Type::kGauge, "Tokens the worker generates per second",
       [](const LiveWorker& worker) { return worker.tokens_per_s; });
  each("assay_worker_leases", Type::kGauge, "Leases the worker holds",
       [](const LiveWorker& worker) { return worker.num_leases; });
  each("assay_worker_units", Type::kGauge, "Units the worker holds",
       [](const LiveWorker& worker) { return worker.num_units; });
  each("assay_worker_samples_total", Type::kCounter,
       "Samples accepted from the worker since it started",
       [](const LiveWorker& worker) { return Real(worker.num_samples); });

  const auto each_slot = [&](std::string_view name, std::string_view help, auto value) {
    out->Family(name, Type::kGauge, help);
    for (const LiveWorker* worker : workers) {
      for (size_t i = 0; i < worker->slots.size() && i < worker->slot_states.size(); ++i) {
        const std::string index = std::to_string(worker->slots[i].index);
        out->Sample({{"worker", worker->worker_id}, {"slot", index}},
                    static_cast<double>(value(worker->slots[i], worker->slot_states[i])));
      }
    }
  };
  each_slot("assay_slot_memory_used_bytes", "Memory of the device or process that the slot uses",
            [](const SlotInfo&, const SlotStatus& status) { return status.memory_used_bytes; });
  each_slot("assay_slot_memory_bytes", "Memory that the slot may use; 0 is no limit of its own",
            [](const SlotInfo& info, const SlotStatus&) { return info.memory_bytes; });
  each_slot("assay_slot_tokens_per_second", "Tokens that the slot generates a second",
            [](const SlotInfo&, const SlotStatus& status) { return status.tokens_per_s; });
  each_slot("assay_slot_sequences", "Sequences that the slot generates now",
            [](const SlotInfo&, const SlotStatus& status) { return status.num_running; });
}

void AddProcess(const MetricsInput& input, Exposition* out) {
  out->Family("assay_rpcs_total", Type::kCounter, "Calls that ended, by method and status code");
  for (const RpcCount& rpc : input.rpcs) {
    out->Sample({{"method", rpc.method}, {"code", rpc.code}}, Real(rpc.num_calls));
  }
  out->Gauge("process_resident_memory_bytes", "Memory of the coordinator in RAM",
             Real(input.process.resident_bytes));
  out->Counter("process_cpu_seconds_total", "CPU time of the coordinator", input.process.cpu_s);
  out->Family("assay_build_info", Type::kGauge, "1; the labels say what runs");
  out->Sample({{"version", Version()}, {"commit", GitCommit()}, {"build_type", BuildType()}}, 1);
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

}  // namespace

std::string RenderMetrics(const MetricsInput& input) {
  Exposition out;
  AddWork(input.live, input.store, &out);
  AddResults(input.live, &out);
  AddStore(input.live, input.store, &out);
  AddWorkers(input.live, &out);
  AddProcess(input, &out);
  return out.text();
}

ProcessStats ReadProcessStats() {
  ProcessStats stats;
  std::ifstream statm("/proc/self/statm");
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  if (statm >> total_pages >> resident_pages) {
    stats.resident_bytes = resident_pages * sysconf(_SC_PAGESIZE);
  }
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    stats.cpu_s = Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
  }
  return stats;
}

}  // namespace assay::coordinator
