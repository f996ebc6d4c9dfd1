// A worker's calls while the coordinator cannot be reached, or only slowly.
#include "worker/agent/coordinator_client.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/testing/local_system.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tcp_proxy.h"
#include "tests/unit/worker/agent/fake_coordinator.h"

namespace assay::worker {
namespace {

using testing::TcpProxy;

std::string AddressOf(const TcpProxy& link) { return "127.0.0.1:" + std::to_string(link.port()); }

// A worker whose calls failed at once, again and again, once never came back to a coordinator that
// was restarted: gRPC finishes a connection only while some thread waits in it.
TEST(CoordinatorClientTest, ACallBeforeTheCoordinatorIsThereIsAnsweredOnceItIs) {
  int port = 0;
  {
    const FakeCoordinator earlier;
    port = earlier.port();
  }
  ASSERT_OK_AND_ASSIGN(const auto link, TcpProxy::Start(port));
  CoordinatorClient client(AddressOf(*link));
  absl::Status reported;
  std::thread caller([&] { reported = client.ReportSamples(v1::ReportSamplesRequest()).status(); });
  // It has tried in vain.
  EXPECT_TRUE(
      testing::WaitUntil([&] { return link->counters().num_connections > 0; }, absl::Minutes(1)));
  FakeCoordinator coordinator(port);
  caller.join();
  EXPECT_OK(reported);
}

TEST(CoordinatorClientTest, ASlowLinkIsWaitedFor) {
  FakeCoordinator coordinator;
  ASSERT_OK_AND_ASSIGN(const auto link, TcpProxy::Start(coordinator.port()));
  link->Slow(absl::Milliseconds(500), 20);
  CoordinatorClient client(AddressOf(*link));
  EXPECT_TRUE(client.WaitForConnection(absl::Minutes(1)));
  EXPECT_EQ(link->counters().num_connections, 1) << "it gave up in the midst of connecting";
}

TEST(CoordinatorClientTest, ShutdownEndsTheWaiting) {
  ASSERT_OK_AND_ASSIGN(const auto link, TcpProxy::Start(1));
  CoordinatorClient client(AddressOf(*link));
  std::thread waiter([&] { EXPECT_FALSE(client.WaitForConnection(absl::InfiniteDuration())); });
  client.Shutdown();
  waiter.join();
  EXPECT_FALSE(client.ReportSamples(v1::ReportSamplesRequest()).ok());
}

}  // namespace
}  // namespace assay::worker
