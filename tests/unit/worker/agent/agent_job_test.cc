// Quantize jobs and the artifacts they leave.
#include "base/hash.h"
#include "tests/unit/worker/agent/agent_harness.h"

namespace assay::worker {
namespace {

class AgentJobTest : public AgentHarness {};

v1::SyncResponse Job(const std::string& hash, const std::string& key, const std::string& bits) {
  v1::SyncResponse response;
  v1::JobGrant* job = response.mutable_job();
  job->set_job_id(9);
  job->set_epoch(2);
  v1::ModelRef* model = job->mutable_quantize()->mutable_model();
  model->set_name("m");
  model->set_model_hash(hash);
  model->set_artifact_key(key);
  model->mutable_method()->set_bits(bits);
  return response;
}

TEST_F(AgentJobTest, AQuantizeJobEndsInAnUploadedArtifactThatUnitsCanUse) {
  StartAgent();
  const std::string key = Sha256Hex("artifact");
  coordinator_->Send(Job(ModelHash("m"), key, "4-16-16"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 1; }));
  const Record record = coordinator_->record();
  EXPECT_EQ(record.jobs[0].error(), "");
  EXPECT_EQ(record.jobs[0].epoch(), 2);
  EXPECT_EQ(record.jobs[0].artifact_key(), key);
  EXPECT_EQ(record.jobs[0].artifact_manifest_sha256().size(), 64u);
  EXPECT_EQ(record.uploads.at(key), "{}");

  v1::SyncResponse lease = Lease("lease-1", {"ok 0"});
  lease.mutable_grant()->mutable_model()->set_artifact_key(key);
  coordinator_->Send(lease);
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));

  // The same job again, after its end got lost: nothing is made twice.
  coordinator_->Send(Job(ModelHash("m"), key, "die"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 2; }));
  EXPECT_EQ(coordinator_->record().jobs[1].error(), "");
}

TEST_F(AgentJobTest, ArtifactsBeyondTheBoundGoAndTheOneInUseStays) {
  Agent::Options options = Options();
  options.max_artifact_bytes = 400;  // one with its manifest, not two
  StartAgent(options);
  const auto is_here = [this](const std::string& key) {
    return fs::exists(directory_ / ("artifacts/" + key));
  };
  const std::string first = Sha256Hex("first");
  const std::string second = Sha256Hex("second");
  const std::string third = Sha256Hex("third");
  coordinator_->Send(Job(ModelHash("m"), first, "4-16-16"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 1; }));
  ASSERT_TRUE(is_here(first));
  coordinator_->Send(Job(ModelHash("m"), second, "4-16-16"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 2; }));
  EXPECT_FALSE(is_here(first)) << "unused for longest";
  ASSERT_TRUE(is_here(second));

  v1::SyncResponse lease = Lease("lease-1", {"ok 0"});
  lease.mutable_grant()->mutable_model()->set_artifact_key(second);
  coordinator_->Send(lease);
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));
  coordinator_->Send(Job(ModelHash("m"), third, "4-16-16"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 3; }));
  EXPECT_TRUE(is_here(second)) << "a slot has loaded it";
  EXPECT_FALSE(is_here(third));
}

TEST_F(AgentJobTest, AFailedJobSaysWhoseFaultItIs) {
  StartAgent();
  coordinator_->Send(Job(ModelHash("m"), Sha256Hex("a"), "fail"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 1; }));
  EXPECT_EQ(coordinator_->record().jobs[0].error(), "bits 'fail' are unknown");
  EXPECT_FALSE(coordinator_->record().jobs[0].infrastructure());
  coordinator_->Send(Job(ModelHash("m"), Sha256Hex("b"), "die"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 2; }));
  EXPECT_TRUE(coordinator_->record().jobs[1].infrastructure());
  coordinator_->Send(Job("other content", Sha256Hex("c"), "4-16-16"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 3; }));
  EXPECT_TRUE(coordinator_->record().jobs[2].infrastructure());
  coordinator_->Send(Job(ModelHash("m"), Sha256Hex("d"), "full"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 4; }));
  EXPECT_TRUE(coordinator_->record().jobs[3].infrastructure());
}

// Quantizing may take hours; a runner that was stopped in it must not take them too.
TEST_F(AgentJobTest, ARunnerThatFallsSilentWhileItQuantizesIsReplaced) {
  Agent::Options options = Options();
  options.slot.stuck_timeout = absl::Milliseconds(200);
  StartAgent(options);
  coordinator_->Send(Job(ModelHash("m"), Sha256Hex("a"), "freeze"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 1; }));
  EXPECT_TRUE(coordinator_->record().jobs[0].infrastructure());
  EXPECT_NE(coordinator_->record().jobs[0].error().find("said nothing"), std::string::npos);
  coordinator_->Send(Lease("lease-1", {"ok 1"}));
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));
}

}  // namespace
}  // namespace assay::worker
