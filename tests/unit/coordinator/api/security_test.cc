// The coordinator with TLS, over real gRPC with real certificates: who gets in, and how far.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <spdlog/sinks/ostream_sink.h>

#include <optional>
#include <sstream>

#include "assay/v1/fleet_service.grpc.pb.h"
#include "assay/v1/results_service.grpc.pb.h"
#include "assay/v1/sweep_service.grpc.pb.h"
#include "assay/v1/token_service.grpc.pb.h"
#include "base/file.h"
#include "base/log.h"
#include "coordinator/api/server.h"
#include "coordinator/auth/token_book.h"
#include "storage/stores/control_store.h"
#include "tests/testing/certificates.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/coordinator/api/fake_worker.h"

namespace assay::coordinator {
namespace {

using assay::testing::Certificates;
using assay::testing::IsError;
using testing::FakeWorker;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kSpec[] =
    "name: small\n"
    "models: [{name: tiny}]\n"
    "methods:\n"
    "  - {method: rtn, bits: [4-16-16], group_size: 128}\n"
    "benchmarks: [{name: arith500}]\n"
    "sampling: {temperature: 0.6, top_p: 0.95, max_tokens: 512}\n";

class SecurityTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    suite_directory_.emplace();
    certificates_.emplace(*suite_directory_ / "");
    worker1_ = certificates_->MakeWorker("w1");
    worker2_ = certificates_->MakeWorker("w2");
  }
  static void TearDownTestSuite() {
    certificates_.reset();
    suite_directory_.reset();
  }

  void SetUp() override {
    ASSERT_OK(MakeDirectories(directory_ / "models/tiny"));
    ASSERT_OK(WriteFileAtomically(directory_ / "models/tiny/config.json", "{}"));
    ASSERT_OK(WriteFileAtomically(directory_ / "models/tiny/model.safetensors", "weights"));
    ASSERT_OK(MakeDirectories(directory_ / "benchmarks"));
    std::string items;
    for (int i = 0; i < 40; ++i) {
      items += fmt::format("{{\"id\": \"i{}\", \"question\": \"{} + 1?\", \"answer\": \"{}\"}}\n",
                           i, i, i + 1);
    }
    ASSERT_OK(WriteFileAtomically(directory_ / "benchmarks/arith500.jsonl", items));
    ASSERT_OK(MakeDirectories(directory_ / "data"));
    ASSERT_OK_AND_ASSIGN(const auto store,
                         storage::ControlStore::Open(directory_ / "data/assay.db"));
    ASSERT_OK(store->Begin());
    for (auto& [name, role, token] :
         {std::tuple("root", Role::kAdmin, &admin_), std::tuple("alice", Role::kSubmitter, &alice_),
          std::tuple("bob", Role::kSubmitter, &bob_), std::tuple("vera", Role::kViewer, &vera_)}) {
      ASSERT_OK_AND_ASSIGN(*token, MakeToken(name, role, 1));
      ASSERT_OK(store->InsertToken(token->record));
    }
    ASSERT_OK(store->Commit());
  }

  void StartServer(double max_calls_per_s = 0) {
    Server::Options options;
    options.data_dir = directory_ / "data";
    options.listen = "127.0.0.1:0";
    options.roots.models = {directory_ / "models"};
    options.query_program = assay::testing::BinaryPath("assay-coordinator");
    options.roots.benchmarks = {directory_ / "benchmarks"};
    options.tls = {certificates_->server(), Certificates::KeyOf(certificates_->server()),
                   certificates_->ca()};
    options.max_calls_per_s = max_calls_per_s;
    ASSERT_OK_AND_ASSIGN(server_, Server::Start(options, RealClock::Get()));
  }

  // A connection of its own, with the certificate when one is named.
  std::shared_ptr<grpc::Channel> Dial(const std::string& certificate = "") const {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = ReadFile(certificates_->ca()).value();
    if (!certificate.empty()) {
      tls.pem_cert_chain = ReadFile(certificate).value();
      tls.pem_private_key = ReadFile(Certificates::KeyOf(certificate)).value();
    }
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(fmt::format("localhost:{}", server_->port()),
                                     grpc::SslCredentials(tls), arguments);
  }

  static void Show(const NewToken& token, grpc::ClientContext* context) {
    context->AddMetadata("authorization", "Bearer " + token.text);
  }
  static grpc::Status List(const std::shared_ptr<grpc::Channel>& channel,
                           const std::string& header) {
    grpc::ClientContext context;
    if (!header.empty()) context.AddMetadata("authorization", header);
    v1::ListSweepsResponse response;
    return v1::SweepService::NewStub(channel)->ListSweeps(&context, {}, &response);
  }
  grpc::Status Submit(const NewToken& token, std::string* sweep_id, const std::string& owner = "") {
    grpc::ClientContext context;
    Show(token, &context);
    v1::SubmitSweepRequest request;
    request.set_spec_yaml(kSpec);
    request.set_owner(owner);
    v1::SubmitSweepResponse response;
    const grpc::Status status =
        v1::SweepService::NewStub(Dial())->SubmitSweep(&context, request, &response);
    *sweep_id = response.sweep_id();
    return status;
  }
  grpc::Status Cancel(const NewToken& token, const std::string& sweep_id) {
    grpc::ClientContext context;
    Show(token, &context);
    v1::CancelSweepRequest request;
    request.set_sweep_id(sweep_id);
    v1::CancelSweepResponse response;
    return v1::SweepService::NewStub(Dial())->CancelSweep(&context, request, &response);
  }
  grpc::Status TryHello(const std::string& certificate, const std::string& worker_id) const {
    FakeWorker worker(Dial(certificate), worker_id, "a");
    v1::SyncRequest request;
    *request.mutable_hello() = worker.MakeHello();
    return worker.TryFirst(request);
  }

  // A worker's conversation up to its first work, which is not done.
  struct Conversation {
    std::unique_ptr<v1::WorkerService::Stub> stub;
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<v1::SyncRequest, v1::SyncResponse>> stream;
    std::optional<v1::JobGrant> job;
    std::vector<v1::Grant> grants;
    ~Conversation() { context.TryCancel(); }
  };
  // Two slots: the job that makes the artifact goes to one, units of the baseline to the other.
  std::unique_ptr<Conversation> TakeWork(const std::string& certificate,
                                         const std::string& worker_id) const {
    auto talk = std::make_unique<Conversation>();
    const auto channel = Dial(certificate);
    talk->stub = v1::WorkerService::NewStub(channel);
    talk->stream = talk->stub->Sync(&talk->context);
    v1::SyncRequest request;
    *request.mutable_hello() = FakeWorker(channel, worker_id, "a").MakeHello();
    request.mutable_hello()->add_slots()->set_index(1);
    talk->stream->Write(request);
    *request.mutable_heartbeat() = FakeWorker::MakeHeartbeat();
    v1::SlotState* second = request.mutable_heartbeat()->add_slots();
    second->set_index(1);
    second->set_phase(v1::SlotState::PHASE_IDLE);
    second->set_num_free_lanes(64);
    talk->stream->Write(request);
    v1::SyncResponse response;
    while ((!talk->job || talk->grants.empty()) && talk->stream->Read(&response)) {
      if (response.has_job()) talk->job = response.job();
      if (response.has_grant()) talk->grants.push_back(response.grant());
    }
    return talk;
  }

  static inline std::optional<assay::testing::TemporaryDirectory> suite_directory_;
  static inline std::optional<Certificates> certificates_;
  static inline std::string worker1_, worker2_;

  assay::testing::TemporaryDirectory directory_;
  NewToken admin_, alice_, bob_, vera_;
  std::unique_ptr<Server> server_;
};

// Workers ---------------------------------------------------------------------------------------

TEST_F(SecurityTest, AWorkerWithItsCertificateDoesAWholeSweep) {
  StartServer();
  FakeWorker worker(Dial(worker1_), "w1", "a");
  worker.Connect();
  std::string sweep_id;
  const grpc::Status submitted = Submit(alice_, &sweep_id);
  ASSERT_TRUE(submitted.ok()) << submitted.error_message();
  grpc::ClientContext context;
  Show(vera_, &context);
  v1::WatchSweepRequest request;
  request.set_sweep_id(sweep_id);
  const auto stub = v1::SweepService::NewStub(Dial());
  const auto reader = stub->WatchSweep(&context, request);
  v1::WatchSweepResponse last;
  for (v1::WatchSweepResponse next; reader->Read(&next);) last = next;
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_EQ(last.sweep().state(), v1::SWEEP_STATE_DONE);
  EXPECT_EQ(last.sweep().num_units_done(), 80);
  EXPECT_EQ(last.sweep().owner(), "alice");
}

TEST_F(SecurityTest, AWorkerIsWhomItsCertificateNames) {
  StartServer();
  const grpc::Status hello = TryHello(worker1_, "w2");
  EXPECT_EQ(hello.error_code(), grpc::StatusCode::PERMISSION_DENIED) << hello.error_message();
  v1::ReportSamplesResponse outcomes;
  EXPECT_EQ(FakeWorker(Dial(worker1_), "w2", "a")
                .Report(std::vector<v1::Sample>{}, &outcomes)
                .error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(
      FakeWorker(Dial(worker1_), "w1", "a").Report(std::vector<v1::Sample>{}, &outcomes).ok());
}

TEST_F(SecurityTest, WithoutACertificateNobodyIsAWorker) {
  StartServer();
  EXPECT_EQ(TryHello("", "w1").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  // Not even an admin.
  grpc::ClientContext context;
  Show(admin_, &context);
  v1::ReportSamplesRequest request;
  request.set_worker_id("w1");
  request.set_incarnation("a");
  v1::ReportSamplesResponse response;
  EXPECT_EQ(
      v1::WorkerService::NewStub(Dial())->ReportSamples(&context, request, &response).error_code(),
      grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(SecurityTest, ACertificateThatNamesNoWorkerOrTwoIsNone) {
  StartServer();
  const std::string nobody = certificates_->MakeClient("nobody", "DNS:w1,URI:urn:other:w1");
  EXPECT_EQ(TryHello(nobody, "w1").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  const std::string both =
      certificates_->MakeClient("both", "URI:urn:assay:worker:w1,URI:urn:assay:worker:w2");
  EXPECT_EQ(TryHello(both, "w1").error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(SecurityTest, CertificatesOutOfDateOrOfAnotherAuthorityOrOfServersEndTheConnection) {
  StartServer();
  EXPECT_EQ(TryHello(certificates_->MakeExpiredWorker("w1"), "w1").error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(TryHello(certificates_->server(), "w1").error_code(), grpc::StatusCode::UNAVAILABLE);
  const assay::testing::TemporaryDirectory elsewhere;
  Certificates other(elsewhere / "");
  EXPECT_EQ(TryHello(other.MakeWorker("w1"), "w1").error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(SecurityTest, AWorkersCertificateOpensNoDoorOfPeople) {
  StartServer();
  EXPECT_EQ(List(Dial(worker1_), "").error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(SecurityTest, AWorkerTouchesNothingOfAnothersWork) {
  StartServer();
  std::string sweep_id;
  ASSERT_TRUE(Submit(alice_, &sweep_id).ok());
  const std::unique_ptr<Conversation> w1 = TakeWork(worker1_, "w1");
  ASSERT_TRUE(w1->job.has_value());
  ASSERT_FALSE(w1->grants.empty());
  const std::string key = w1->job->quantize().model().artifact_key();
  const std::string sha256 = Sha256Hex("weights");

  FakeWorker thief(Dial(worker2_), "w2", "a");
  EXPECT_EQ(thief.Upload(key, "weights", sha256).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(thief.CompleteJob(*w1->job, "broken", "").error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  const v1::Grant& grant = w1->grants[0];
  v1::ReportSamplesResponse outcomes;
  const grpc::Status reported = thief.Report({thief.MakeSample(grant, grant.units(0))}, &outcomes);
  EXPECT_EQ(reported.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(reported.error_message(), Not(HasSubstr("w1")));

  // The owner of the job may put the artifact there; only who has work for it may take it.
  FakeWorker owner(Dial(worker1_), "w1", "a");
  const grpc::Status uploaded = owner.Upload(key, "weights", sha256);
  EXPECT_TRUE(uploaded.ok()) << uploaded.error_message();
  grpc::Status fetched;
  EXPECT_EQ(thief.Fetch(key, &fetched), "");
  EXPECT_EQ(fetched.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(owner.Fetch(key, &fetched), "weights");
  EXPECT_TRUE(fetched.ok()) << fetched.error_message();
}

TEST_F(SecurityTest, AnEndedLeaseIsStillItsWorkersOwn) {
  StartServer();
  std::string sweep_id;
  ASSERT_TRUE(Submit(alice_, &sweep_id).ok());
  v1::Grant grant;
  {
    const std::unique_ptr<Conversation> w1 = TakeWork(worker1_, "w1");
    ASSERT_FALSE(w1->grants.empty());
    grant = w1->grants[0];
  }
  // Another start of w1 ends the leases of the one before; it is idle and takes them not again.
  FakeWorker again(Dial(worker1_), "w1", "b");
  v1::SyncRequest hello;
  *hello.mutable_hello() = again.MakeHello();
  {
    grpc::ClientContext context;
    const auto stub = v1::WorkerService::NewStub(Dial(worker1_));
    const auto stream = stub->Sync(&context);
    stream->Write(hello);
    v1::SyncResponse response;
    while (stream->Read(&response) && !response.has_welcome()) {
    }
    context.TryCancel();
  }
  FakeWorker thief(Dial(worker2_), "w2", "a");
  v1::ReportSamplesResponse outcomes;
  const grpc::Status stolen = thief.Report({thief.MakeSample(grant, grant.units(0))}, &outcomes);
  ASSERT_TRUE(stolen.ok()) << stolen.error_message();
  EXPECT_EQ(outcomes.outcomes(0), v1::ReportSamplesResponse::OUTCOME_FENCED);
  outcomes.Clear();
  ASSERT_TRUE(again.Report({again.MakeSample(grant, grant.units(0))}, &outcomes).ok());
  EXPECT_EQ(outcomes.outcomes(0), v1::ReportSamplesResponse::OUTCOME_ACCEPTED);
}

// People ----------------------------------------------------------------------------------------

TEST_F(SecurityTest, WithoutAGoodTokenNobodyReads) {
  StartServer();
  const auto channel = Dial();
  std::string altered = admin_.text;
  altered.back() = altered.back() == '0' ? '1' : '0';
  for (const std::string& header :
       {std::string(), std::string("Bearer "), "Bearer " + altered, admin_.text,
        "Basic " + admin_.text, "Bearer " + admin_.record.hash}) {
    const grpc::Status status = List(channel, header);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr("token"));
  }
  const grpc::Status good = List(channel, "Bearer " + vera_.text);
  EXPECT_TRUE(good.ok()) << good.error_message();
}

TEST_F(SecurityTest, AViewerCannotSubmit) {
  StartServer();
  std::string sweep_id;
  const grpc::Status status = Submit(vera_, &sweep_id);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(status.error_message(), HasSubstr("needs the role submitter"));
}

TEST_F(SecurityTest, ASweepIsItsSubmittersAndOfNobodySheNames) {
  StartServer();
  std::string sweep_id;
  ASSERT_TRUE(Submit(alice_, &sweep_id, "bob").ok());
  const grpc::Status others = Cancel(bob_, sweep_id);
  EXPECT_EQ(others.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(others.error_message(), Not(HasSubstr("alice")));
  const grpc::Status own = Cancel(alice_, sweep_id);
  EXPECT_TRUE(own.ok()) << own.error_message();
  ASSERT_TRUE(Submit(bob_, &sweep_id).ok());
  EXPECT_TRUE(Cancel(admin_, sweep_id).ok());
}

TEST_F(SecurityTest, OnlyAdminsDrainWorkersAndGiveOutTokens) {
  StartServer();
  for (const NewToken* token : {&vera_, &alice_}) {
    grpc::ClientContext drain;
    Show(*token, &drain);
    v1::DrainWorkerRequest worker;
    worker.set_worker_id("w1");
    v1::DrainWorkerResponse drained;
    EXPECT_EQ(v1::FleetService::NewStub(Dial())->DrainWorker(&drain, worker, &drained).error_code(),
              grpc::StatusCode::PERMISSION_DENIED);
    grpc::ClientContext list;
    Show(*token, &list);
    v1::ListTokensResponse tokens;
    EXPECT_EQ(v1::TokenService::NewStub(Dial())->ListTokens(&list, {}, &tokens).error_code(),
              grpc::StatusCode::PERMISSION_DENIED);
  }
}

TEST_F(SecurityTest, ATokenWorksFromItsMakingToItsRevocationAlsoAcrossARestart) {
  StartServer();
  v1::CreateTokenResponse made;
  {
    grpc::ClientContext context;
    Show(admin_, &context);
    v1::CreateTokenRequest request;
    request.set_name("carol");
    request.set_role(v1::Token::ROLE_VIEWER);
    const grpc::Status status =
        v1::TokenService::NewStub(Dial())->CreateToken(&context, request, &made);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  EXPECT_TRUE(List(Dial(), "Bearer " + made.secret()).ok());
  server_.reset();
  StartServer();
  EXPECT_TRUE(List(Dial(), "Bearer " + made.secret()).ok());
  {
    grpc::ClientContext context;
    Show(admin_, &context);
    v1::RevokeTokenRequest request;
    request.set_token_id(made.token().id());
    v1::RevokeTokenResponse response;
    ASSERT_TRUE(v1::TokenService::NewStub(Dial())->RevokeToken(&context, request, &response).ok());
  }
  EXPECT_EQ(List(Dial(), "Bearer " + made.secret()).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  server_.reset();
  StartServer();
  EXPECT_EQ(List(Dial(), "Bearer " + made.secret()).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(SecurityTest, TheTableOfTokensIsClosedToQueries) {
  StartServer();
  for (const char* sql : {"SELECT hash FROM token", "SELECT count(*) FROM Token",
                          "SELECT * FROM worker WHERE EXISTS (SELECT 1 FROM token)"}) {
    grpc::ClientContext context;
    Show(admin_, &context);
    v1::RunQueryRequest request;
    request.set_sql(sql);
    const auto stub = v1::ResultsService::NewStub(Dial());
    const auto reader = stub->RunQuery(&context, request);
    v1::RunQueryResponse response;
    while (reader->Read(&response)) EXPECT_EQ(response.rows_size(), 0) << sql;
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT) << sql;
  }
}

TEST_F(SecurityTest, WhoCallsTooOftenIsToldSoAndOthersAreNot) {
  StartServer(/*max_calls_per_s=*/0.01);  // 0.02 at once: none
  const grpc::Status status = List(Dial(), "Bearer " + vera_.text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("--max-calls-per-second"));
}

// The port ----------------------------------------------------------------------------------------

TEST_F(SecurityTest, PlaintextGetsNothingFromATlsPort) {
  StartServer();
  const auto channel = grpc::CreateChannel(fmt::format("127.0.0.1:{}", server_->port()),
                                           grpc::InsecureChannelCredentials());
  EXPECT_EQ(List(channel, "Bearer " + admin_.text).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(SecurityTest, TlsNeedsAllItsFilesAndAKeyThatOthersCannotRead) {
  Server::Options options;
  options.data_dir = directory_ / "other";
  options.listen = "127.0.0.1:0";
  options.tls.cert = certificates_->server();
  EXPECT_THAT(Server::Start(options, RealClock::Get()),
              IsError(absl::StatusCode::kInvalidArgument, "--tls-key"));
  options.tls.ca = certificates_->ca();
  options.tls.key = directory_ / "open.key";
  ASSERT_OK(WriteFileAtomically(options.tls.key,
                                ReadFile(Certificates::KeyOf(certificates_->server())).value()));
  EXPECT_THAT(Server::Start(options, RealClock::Get()),
              IsError(absl::StatusCode::kFailedPrecondition, "chmod 600"));
}

TEST_F(SecurityTest, NoTokenIsEverLogged) {
  std::ostringstream text;
  const auto before = spdlog::default_logger();
  auto logger = std::make_shared<spdlog::logger>(
      "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text));
  logger->set_level(spdlog::level::trace);
  spdlog::set_default_logger(logger);
  StartServer();
  std::string sweep_id;
  EXPECT_TRUE(Submit(alice_, &sweep_id).ok());
  EXPECT_FALSE(Submit(vera_, &sweep_id).ok());
  EXPECT_FALSE(List(Dial(), "Bearer " + admin_.text + "0").ok());
  server_.reset();
  spdlog::set_default_logger(before);
  EXPECT_THAT(text.str(), HasSubstr("submitted"));
  EXPECT_THAT(text.str(), HasSubstr("refused"));
  EXPECT_THAT(text.str(), Not(HasSubstr("assay_")));
  EXPECT_THAT(text.str(), Not(HasSubstr(alice_.record.hash)));
}

}  // namespace
}  // namespace assay::coordinator
