#include "coordinator/api/server.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>

#include <functional>

#include "assay/v1/fleet_service.grpc.pb.h"
#include "assay/v1/results_service.grpc.pb.h"
#include "assay/v1/sweep_service.grpc.pb.h"
#include "base/file.h"
#include "base/numerics_version.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/coordinator/api/fake_worker.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;
using testing::FakeWorker;

constexpr char kSpec[] =
    "name: small\n"
    "models: [{name: tiny}]\n"
    "methods:\n"
    "  - {method: rtn, bits: [4-16-16, 3-16-16], group_size: 128}\n"
    "benchmarks: [{name: arith500}]\n"
    "sampling: {temperature: 0.6, top_p: 0.95, max_tokens: 512}\n";

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(MakeDirectories(directory_ / "models/tiny"));
    ASSERT_OK(WriteFileAtomically(directory_ / "models/tiny/config.json", "{}"));
    ASSERT_OK(WriteFileAtomically(directory_ / "models/tiny/model.safetensors", "weights"));
    ASSERT_OK(MakeDirectories(directory_ / "benchmarks/arith500"));
    std::string items;
    for (int i = 0; i < 60; ++i) {
      items +=
          fmt::format(R"({{"id": "item-{}", "question": "{} + 1?", "answer": "{}", "level": {}}})",
                      i, i, i + 1, i % 5 + 1);
      items += "\n";
    }
    ASSERT_OK(WriteFileAtomically(directory_ / "benchmarks/arith500/arith500.jsonl", items));
    ASSERT_OK(WriteFileAtomically(directory_ / "benchmarks/arith500.jsonl", items));
    StartServer();
  }
  void StartServer() {
    Server::Options options;
    options.data_dir = directory_ / "data";
    options.listen = "127.0.0.1:0";
    options.roots.models = {directory_ / "models"};
    options.query_program = assay::testing::BinaryPath("assay-coordinator");
    options.roots.benchmarks = {directory_ / "benchmarks"};
    auto server = Server::Start(options, RealClock::Get());
    ASSERT_OK(server);
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(fmt::format("127.0.0.1:{}", server_->port()),
                                   grpc::InsecureChannelCredentials());
    sweeps_ = v1::SweepService::NewStub(channel_);
    results_ = v1::ResultsService::NewStub(channel_);
    fleet_ = v1::FleetService::NewStub(channel_);
  }

  std::string Submit(const std::string& spec, const std::string& request_id = "") {
    v1::SubmitSweepRequest request;
    request.set_spec_yaml(spec);
    request.set_spec_name("small.yaml");
    request.set_request_id(request_id);
    grpc::ClientContext context;
    v1::SubmitSweepResponse response;
    const grpc::Status status = sweeps_->SubmitSweep(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.sweep_id();
  }
  // Watches until the sweep has settled.
  v1::Sweep WaitFor(const std::string& sweep_id) {
    v1::WatchSweepRequest request;
    request.set_sweep_id(sweep_id);
    request.set_min_interval_us(100'000);
    grpc::ClientContext context;
    const auto reader = sweeps_->WatchSweep(&context, request);
    v1::WatchSweepResponse response;
    v1::WatchSweepResponse last;
    while (reader->Read(&response)) last = response;
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return last.sweep();
  }
  v1::Sweep Get(const std::string& sweep_id) {
    v1::GetSweepRequest request;
    request.set_sweep_id(sweep_id);
    grpc::ClientContext context;
    v1::GetSweepResponse response;
    const grpc::Status status = sweeps_->GetSweep(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.sweep();
  }

  assay::testing::TemporaryDirectory directory_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::SweepService::Stub> sweeps_;
  std::unique_ptr<v1::ResultsService::Stub> results_;
  std::unique_ptr<v1::FleetService::Stub> fleet_;
};

TEST_F(ServerTest, ASweepGoesInAndATableComesOut) {
  FakeWorker worker(channel_, "w1", "a");
  worker.Connect();
  const std::string sweep_id = Submit(kSpec);
  const v1::Sweep sweep = WaitFor(sweep_id);
  EXPECT_EQ(sweep.state(), v1::SWEEP_STATE_DONE);
  EXPECT_EQ(sweep.cells_size(), 3);
  EXPECT_EQ(sweep.num_units(), 180);
  EXPECT_EQ(sweep.num_units_done(), 180);
  EXPECT_GT(sweep.finished_time_us(), 0);

  v1::GetResultsRequest results;
  results.set_sweep_id(sweep_id);
  grpc::ClientContext context;
  v1::GetResultsResponse table;
  ASSERT_TRUE(results_->GetResults(&context, results, &table).ok());
  EXPECT_TRUE(table.complete());
  ASSERT_GE(table.rows_size(), 3);
  EXPECT_EQ(table.rows(0).accuracy(), 1);

  // The same again is done at once, from the store.
  const std::string again = Submit(kSpec);
  EXPECT_NE(again, sweep_id);
  EXPECT_EQ(Get(again).state(), v1::SWEEP_STATE_DONE);
}

TEST_F(ServerTest, PlanSaysWhatSubmitWouldDoAndChangesNothing) {
  v1::PlanSweepRequest request;
  request.set_spec_yaml(kSpec);
  grpc::ClientContext context;
  v1::PlanSweepResponse response;
  const grpc::Status status = sweeps_->PlanSweep(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.plan().cells_size(), 3);
  EXPECT_EQ(response.plan().num_units(), 180);
  EXPECT_EQ(response.plan().num_quantize_jobs(), 2);
  EXPECT_EQ(response.plan().num_units_cached(), 0);
  grpc::ClientContext list_context;
  v1::ListSweepsResponse sweeps;
  ASSERT_TRUE(sweeps_->ListSweeps(&list_context, {}, &sweeps).ok());
  EXPECT_EQ(sweeps.sweeps_size(), 0);
}

TEST_F(ServerTest, AWrongSpecSaysWhere) {
  v1::SubmitSweepRequest request;
  request.set_spec_yaml("name: x\nmodles: []\n");
  request.set_spec_name("x.yaml");
  grpc::ClientContext context;
  v1::SubmitSweepResponse response;
  const grpc::Status status = sweeps_->SubmitSweep(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), ::testing::HasSubstr("x.yaml:2"));
}

TEST_F(ServerTest, ARepeatedSubmissionIsOneSweepEvenWhileTheFirstRuns) {
  std::vector<std::string> ids(4);
  std::vector<std::thread> threads;
  for (std::string& id : ids) threads.emplace_back([&] { id = Submit(kSpec, "request-7"); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(ids, ::testing::Each(ids[0]));
}

TEST_F(ServerTest, PauseResumeCancelAndAPrefixOfTheId) {
  const std::string sweep_id = Submit(kSpec);
  grpc::ClientContext pause_context;
  v1::PauseSweepRequest pause;
  pause.set_sweep_id(sweep_id.substr(0, 12));
  v1::PauseSweepResponse paused;
  ASSERT_TRUE(sweeps_->PauseSweep(&pause_context, pause, &paused).ok());
  EXPECT_EQ(paused.sweep().state(), v1::SWEEP_STATE_PAUSED);
  grpc::ClientContext resume_context;
  v1::ResumeSweepRequest resume;
  resume.set_sweep_id(sweep_id);
  v1::ResumeSweepResponse resumed;
  ASSERT_TRUE(sweeps_->ResumeSweep(&resume_context, resume, &resumed).ok());
  EXPECT_EQ(resumed.sweep().state(), v1::SWEEP_STATE_ACTIVE);
  grpc::ClientContext cancel_context;
  v1::CancelSweepRequest cancel;
  cancel.set_sweep_id(sweep_id);
  v1::CancelSweepResponse cancelled;
  ASSERT_TRUE(sweeps_->CancelSweep(&cancel_context, cancel, &cancelled).ok());
  EXPECT_EQ(cancelled.sweep().state(), v1::SWEEP_STATE_CANCELLED);
  EXPECT_EQ(WaitFor(sweep_id).state(), v1::SWEEP_STATE_CANCELLED);
  grpc::ClientContext again_context;
  const grpc::Status status = sweeps_->ResumeSweep(&again_context, resume, &resumed);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(ServerTest, AnUnknownSweepIsNotFound) {
  v1::GetSweepRequest request;
  request.set_sweep_id("sweep-ffffffffffff");
  grpc::ClientContext context;
  v1::GetSweepResponse response;
  EXPECT_EQ(sweeps_->GetSweep(&context, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, ACellThatNoSlotHoldsWaitsAndSaysWhy) {
  ASSERT_OK(MakeDirectories(directory_ / "models/large"));
  ASSERT_OK(WriteFileAtomically(
      directory_ / "models/large/config.json",
      R"({"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
          "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
          "max_position_embeddings": 131072, "tie_word_embeddings": false})"));
  ASSERT_OK(WriteFileAtomically(directory_ / "models/large/model.safetensors", "weights"));
  const std::string spec =
      "name: large\nmodels: [{name: large}, {name: tiny}]\n"
      "benchmarks: [{name: arith500}]\nsampling: {temperature: 0.6, max_tokens: 512}\n";
  const std::string reason = "needs 171.5 GiB; the largest slot has 24.0 GiB";
  FakeWorker worker(channel_, "w1", "a");
  worker.set_memory_bytes(int64_t{24} << 30);
  worker.Connect();
  const std::string sweep_id = Submit(spec);

  // The cell of the tiny model is done meanwhile.
  v1::WatchSweepRequest watch;
  watch.set_sweep_id(sweep_id);
  watch.set_min_interval_us(100'000);
  grpc::ClientContext watch_context;
  const auto reader = sweeps_->WatchSweep(&watch_context, watch);
  v1::WatchSweepResponse update;
  do {
    ASSERT_TRUE(reader->Read(&update));
    ASSERT_EQ(update.sweep().cells_size(), 2);
  } while (update.sweep().cells(1).state() != v1::CellStatus::STATE_DONE ||
           update.sweep().cells(0).waiting_reason() != reason);
  EXPECT_EQ(update.sweep().cells(0).num_units_running(), 0);
  EXPECT_EQ(update.sweep().cells(1).waiting_reason(), "");
  watch_context.TryCancel();

  // The fleet is known now: a plan says it before anything is submitted.
  v1::PlanSweepRequest plan;
  plan.set_spec_yaml(spec);
  grpc::ClientContext plan_context;
  v1::PlanSweepResponse planned;
  ASSERT_TRUE(sweeps_->PlanSweep(&plan_context, plan, &planned).ok());
  EXPECT_GT(planned.plan().cells(0).memory_need_bytes(), int64_t{131} << 30);
  EXPECT_EQ(planned.plan().cells(0).tensor_parallel_size(), 1);
  EXPECT_THAT(planned.plan().warnings(),
              ::testing::Contains("1 of 2 cells will wait for another worker: each " + reason));
}

// One spec for two devices: what the CPU's worker gets, and what waits for a GPU.
TEST_F(ServerTest, ACellOfAnotherArithmeticWaitsAndSaysWhy) {
  FakeWorker worker(channel_, "w1", "a");
  worker.set_numerics_version("cpu-2");
  worker.Connect();
  const std::string spec =
      "name: s\nmodels: [tiny]\nbenchmarks: [{name: arith500}]\nsampling: {max_tokens: 512}\n";
  const std::string sweep_id = Submit(spec + "device: cuda\n");
  const std::string reason =
      std::string("needs a slot with ") + kCudaNumericsVersion + "; workers offer cpu-2";
  EXPECT_EQ(WaitFor(Submit(spec)).state(), v1::SWEEP_STATE_DONE);
  const v1::Sweep waiting = Get(sweep_id);
  EXPECT_EQ(waiting.cells(0).waiting_reason(), reason);
  EXPECT_EQ(waiting.num_units_done(), 0);

  v1::PlanSweepRequest plan;
  plan.set_spec_yaml(spec + "device: cuda\n");
  grpc::ClientContext plan_context;
  v1::PlanSweepResponse planned;
  ASSERT_TRUE(sweeps_->PlanSweep(&plan_context, plan, &planned).ok());
  EXPECT_EQ(planned.plan().cells(0).engine_numerics_version(), kCudaNumericsVersion);
  EXPECT_THAT(planned.plan().warnings(),
              ::testing::Contains("1 of 1 cells will wait for another worker: each " + reason));
  grpc::ClientContext list_context;
  v1::ListWorkersResponse workers;
  ASSERT_TRUE(fleet_->ListWorkers(&list_context, {}, &workers).ok());
  EXPECT_EQ(workers.workers(0).engine_numerics_version(), "cpu-2");
}

TEST_F(ServerTest, WrongHellosAreRefused) {
  FakeWorker worker(channel_, "w1", "a");
  const auto refused = [&](const char* piece, const std::function<void(v1::Hello*)>& change) {
    v1::SyncRequest request;
    *request.mutable_hello() = worker.MakeHello();
    change(request.mutable_hello());
    const grpc::Status status = worker.TryFirst(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << piece;
    EXPECT_THAT(status.error_message(), ::testing::HasSubstr(piece));
  };
  refused("worker_id", [](auto* hello) { hello->clear_worker_id(); });
  refused("worker_id", [](auto* hello) { hello->set_worker_id("../../etc"); });
  refused("worker_id", [](auto* hello) { hello->set_worker_id(std::string(65, 'x')); });
  refused("incarnation", [](auto* hello) { hello->clear_incarnation(); });
  refused("version", [](auto* hello) { hello->set_version(std::string(1000, 'v')); });
  refused("slots", [](auto* hello) { hello->clear_slots(); });
  refused("slot.index", [](auto* hello) { hello->mutable_slots(0)->set_index(-1); });
  refused("slot.index", [](auto* hello) { *hello->add_slots() = hello->slots(0); });
  refused("memory_bytes", [](auto* hello) { hello->mutable_slots(0)->set_memory_bytes(-1); });
  refused("provenance",
          [](auto* hello) { hello->mutable_provenance()->set_device(std::string(100'000, 'd')); });
  v1::SyncRequest heartbeat;
  *heartbeat.mutable_heartbeat() = FakeWorker::MakeHeartbeat();
  EXPECT_EQ(worker.TryFirst(heartbeat).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServerTest, WrongReportsAreRefused) {
  FakeWorker worker(channel_, "w1", "a");
  v1::Grant grant;
  grant.set_lease_id("lease-1-1");
  grant.set_grader("boxed_number");
  v1::Unit unit;
  unit.mutable_key()->set_cell_id(1);
  unit.set_epoch(1);
  const auto refused = [&](const char* piece, const std::function<void(v1::Sample*)>& change) {
    v1::Sample sample = worker.MakeSample(grant, unit);
    change(&sample);
    v1::ReportSamplesResponse response;
    const grpc::Status status = worker.Report({sample}, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << piece;
    EXPECT_THAT(status.error_message(), ::testing::HasSubstr(piece));
  };
  refused("prompt_tokens", [](auto* sample) { sample->set_prompt_tokens(-1); });
  refused("completion_tokens", [](auto* sample) { sample->set_completion_tokens(-5); });
  refused("thinking_tokens", [](auto* sample) { sample->set_thinking_tokens(1'000'000); });
  refused("finish_reason",
          [](auto* sample) { sample->set_finish_reason(v1::FINISH_REASON_UNSPECIFIED); });
  refused("prompt_sha256", [](auto* sample) { sample->set_prompt_sha256("short"); });
  refused("item_index", [](auto* sample) { sample->mutable_unit()->set_item_index(-1); });
  refused("repeat", [](auto* sample) { sample->mutable_unit()->set_repeat(-1); });
  refused("epoch", [](auto* sample) { sample->set_epoch(0); });
  refused("e2e_us", [](auto* sample) { sample->set_e2e_us(-1); });
  refused("mean_batch_size", [](auto* sample) { sample->set_mean_batch_size(0.0 / 0.0); });
  refused("verdict", [](auto* sample) {
    sample->mutable_grade()->set_verdict(v1::Grade::VERDICT_UNSPECIFIED);
  });
  refused("lease_id", [](auto* sample) { sample->set_lease_id(std::string(1000, 'l')); });
  refused("text_zstd", [](auto* sample) { sample->set_text_zstd("no zstd frame"); });
  refused("token_ids_zstd", [](auto* sample) { sample->clear_token_ids_zstd(); });
  refused("12 bytes of ids for 4", [](auto* sample) { sample->set_completion_tokens(4); });
  // A text that unpacks to more than anybody would read.
  refused("at most", [](auto* sample) {
    sample->set_text_zstd(storage::CompressText(std::string(80 << 20, '\0')));
  });

  v1::ReportSamplesResponse response;
  const std::vector<v1::Sample> many(33, worker.MakeSample(grant, unit));
  EXPECT_THAT(worker.Report(many, &response).error_message(), ::testing::HasSubstr("33"));
  std::vector<v1::Sample> big(2, worker.MakeSample(grant, unit));
  for (v1::Sample& sample : big) sample.set_text_zstd(std::string(600'000, 'z'));
  EXPECT_THAT(worker.Report(big, &response).error_message(), ::testing::HasSubstr("bytes"));
  v1::ReportSamplesRequest nameless;
  EXPECT_EQ(worker.Report(nameless, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  // Plausible, and of no unit here: fenced, not an error.
  ASSERT_TRUE(worker.Report({worker.MakeSample(grant, unit)}, &response).ok());
  EXPECT_EQ(response.outcomes(0), v1::ReportSamplesResponse::OUTCOME_FENCED);
}

TEST_F(ServerTest, ArtifactsComeInWholeOrNotAtAll) {
  FakeWorker worker(channel_, "w1", "a");
  const std::string key(64, 'a');
  const std::string content(12'345, 'x');
  EXPECT_EQ(worker.Upload(key, content, Sha256Hex("something else")).error_code(),
            grpc::StatusCode::DATA_LOSS);
  grpc::Status status;
  worker.Fetch(key, &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(worker.Upload(key, content, Sha256Hex(content)).ok());
  EXPECT_EQ(worker.Upload(key, content, Sha256Hex(content)).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(worker.Fetch(key, &status), content);
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(worker.Upload("../escape", content, Sha256Hex(content)).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  worker.Fetch("../escape", &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServerTest, ReadOnlySqlIsAnsweredAndWritesAreRefused) {
  FakeWorker worker(channel_, "w1", "a");
  worker.Connect();
  WaitFor(Submit(kSpec));
  const auto query = [&](const std::string& sql, int64_t* num_rows) {
    v1::RunQueryRequest request;
    request.set_sql(sql);
    grpc::ClientContext context;
    const auto reader = results_->RunQuery(&context, request);
    v1::RunQueryResponse response;
    *num_rows = 0;
    while (reader->Read(&response)) *num_rows += response.rows_size();
    return reader->Finish();
  };
  int64_t num_rows = 0;
  grpc::Status status = query("SELECT * FROM v_sample", &num_rows);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(num_rows, 180);
  EXPECT_EQ(query("DELETE FROM sample", &num_rows).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

// SQLite cannot look at a clock inside of instr().
TEST_F(ServerTest, AQueryThatDoesNotLookAtTheClockEndsAllTheSame) {
  v1::RunQueryRequest request;
  request.set_sql(
      "SELECT instr(hex(zeroblob(30000000)), hex(zeroblob(15000000)) || '1'), "
      "instr(hex(zeroblob(30000001)), hex(zeroblob(15000000)) || '1')");
  request.set_timeout_us(100'000);
  v1::RunQueryResponse response;
  {
    grpc::ClientContext context;
    const auto reader = results_->RunQuery(&context, request);
    EXPECT_FALSE(reader->Read(&response));
    const grpc::Status status = reader->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << status.error_message();
  }
  // Nor does it hold up the end of the coordinator.
  request.set_timeout_us(300'000'000);
  grpc::ClientContext context;
  const auto reader = results_->RunQuery(&context, request);
  server_->Stop();
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(ServerTest, AQueryHasABoundOfMemory) {
  std::string sql = "SELECT 1";
  for (int i = 0; i < 20; ++i) sql += fmt::format(", hex(zeroblob({}))", 30'000'000 + i);
  v1::RunQueryRequest request;
  request.set_sql(sql);
  request.set_timeout_us(120'000'000);
  grpc::ClientContext context;
  const auto reader = results_->RunQuery(&context, request);
  v1::RunQueryResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
}

TEST_F(ServerTest, SamplesAreListedPageByPageAndReadOneByOne) {
  FakeWorker worker(channel_, "w1", "a");
  worker.Connect();
  const std::string sweep_id = Submit(kSpec);
  WaitFor(sweep_id);
  v1::ListSamplesRequest request;
  request.set_sweep_id(sweep_id);
  request.set_page_size(100);
  int num_samples = 0;
  int num_pages = 0;
  int64_t one = 0;
  do {
    grpc::ClientContext context;
    v1::ListSamplesResponse response;
    ASSERT_TRUE(results_->ListSamples(&context, request, &response).ok());
    num_samples += response.samples_size();
    one = response.samples(0).sample_id();
    request.set_page_token(response.next_page_token());
    ++num_pages;
  } while (!request.page_token().empty() && num_pages < 10);
  EXPECT_EQ(num_samples, 180);
  EXPECT_EQ(num_pages, 2);
  grpc::ClientContext context;
  v1::GetSampleRequest get;
  get.set_sample_id(one);
  v1::GetSampleResponse sample;
  ASSERT_TRUE(results_->GetSample(&context, get, &sample).ok());
  EXPECT_EQ(sample.text(), "\\boxed{" + sample.gold() + "}");
  EXPECT_EQ(sample.token_ids_size(), 3);

  // Requeued, it is made again.
  grpc::ClientContext requeue_context;
  v1::RequeueSampleRequest requeue;
  requeue.set_sample_id(one);
  requeue.set_request_id("again");
  v1::RequeueSampleResponse unit;
  const grpc::Status status = results_->RequeueSample(&requeue_context, requeue, &unit);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(WaitFor(sweep_id).num_units_done(), 180);
}

TEST_F(ServerTest, WorkersAndEventsAreSeen) {
  FakeWorker worker(channel_, "w1", "a");
  worker.Connect();
  const std::string sweep_id = Submit(kSpec);
  WaitFor(sweep_id);
  grpc::ClientContext list_context;
  v1::ListWorkersResponse workers;
  ASSERT_TRUE(fleet_->ListWorkers(&list_context, {}, &workers).ok());
  ASSERT_EQ(workers.workers_size(), 1);
  EXPECT_EQ(workers.workers(0).state(), v1::Worker::STATE_ONLINE);
  EXPECT_EQ(workers.workers(0).num_samples(), 180);

  grpc::ClientContext fleet_context;
  const auto fleet = fleet_->WatchFleet(&fleet_context, {});
  v1::WatchFleetResponse present;
  ASSERT_TRUE(fleet->Read(&present));
  EXPECT_EQ(present.num_samples(), 180);
  fleet_context.TryCancel();
  fleet->Finish();

  grpc::ClientContext events_context;
  v1::WatchEventsRequest request;
  request.set_sweep_id(sweep_id);
  const auto events = fleet_->WatchEvents(&events_context, request);
  v1::WatchEventsResponse response;
  std::vector<std::string> kinds;
  while (events->Read(&response)) {
    for (const v1::Event& event : response.events()) kinds.push_back(event.kind());
  }
  EXPECT_TRUE(events->Finish().ok());
  EXPECT_THAT(kinds, ::testing::Contains("sweep_submitted"));
  EXPECT_THAT(kinds, ::testing::Contains("sweep_done"));

  grpc::ClientContext drain_context;
  v1::DrainWorkerRequest drain;
  drain.set_worker_id("w1");
  v1::DrainWorkerResponse drained;
  EXPECT_TRUE(fleet_->DrainWorker(&drain_context, drain, &drained).ok());
}

TEST_F(ServerTest, ARestartOnTheSameDataGoesOnWhereItWas) {
  const std::string sweep_id = Submit(kSpec);
  server_.reset();
  StartServer();
  EXPECT_EQ(Get(sweep_id).state(), v1::SWEEP_STATE_ACTIVE);
  FakeWorker worker(channel_, "w1", "a");
  worker.Connect();
  EXPECT_EQ(WaitFor(sweep_id).state(), v1::SWEEP_STATE_DONE);
}

TEST_F(ServerTest, StoppingEndsConversationsAndWatches) {
  FakeWorker worker(channel_, "w1", "a");
  worker.Connect();
  v1::WatchEventsRequest request;
  request.set_follow(true);
  grpc::ClientContext context;
  const auto events = fleet_->WatchEvents(&context, request);
  v1::WatchEventsResponse response;
  ASSERT_TRUE(events->Read(&response));  // the worker is online
  server_->Stop();
  while (events->Read(&response)) {
  }
  EXPECT_EQ(events->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ServerTest, ASecondCoordinatorOnTheSameDataIsRefused) {
  Server::Options options;
  options.data_dir = directory_ / "data";
  options.listen = "127.0.0.1:0";
  EXPECT_THAT(Server::Start(options, RealClock::Get()),
              IsError(absl::StatusCode::kFailedPrecondition, "assay.db"));
}

TEST_F(ServerTest, OnlyLoopbackIsServedWithoutTls) {
  Server::Options options;
  options.data_dir = directory_ / "other";
  options.listen = "0.0.0.0:0";
  EXPECT_THAT(Server::Start(options, RealClock::Get()),
              IsError(absl::StatusCode::kInvalidArgument, "loopback"));
}

}  // namespace
}  // namespace assay::coordinator
