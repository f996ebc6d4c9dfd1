#include "coordinator/control/control_loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "coordinator/control/meters.h"
#include "tests/unit/coordinator/control/control_harness.h"

namespace assay::coordinator {
namespace {

class ControlLoopTest : public ::testing::Test, protected testing::ControlHarness {};

// The control thread stands still, so that what is posted waits.
class Pause {
 public:
  explicit Pause(ControlLoop* loop) {
    loop->Post(
        [this](ControlPlane&) {
          entered_.set_value();
          go_on_.get_future().wait();
        },
        [](const absl::Status&) {});
    entered_.get_future().wait();
  }
  void End() { go_on_.set_value(); }

 private:
  std::promise<void> entered_;
  std::promise<void> go_on_;
};

TEST_F(ControlLoopTest, WorkOfManyThreadsIsDoneOnceEachAndAnsweredAfterTheCommit) {
  ControlLoop loop(&plane(), &store(), [](std::vector<OutgoingMessage>) {}, {});
  loop.Start();
  std::atomic<int> num_done = 0;
  int num_worked = 0;  // of the control thread alone
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        EXPECT_OK(loop.Run([&](ControlPlane&) { ++num_worked; }));
        ++num_done;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_done, 400);
  loop.Stop();
  EXPECT_EQ(num_worked, 400);
  EXPECT_LE(plane().counters().num_commits, 410);
}

TEST_F(ControlLoopTest, WhatWasPostedBeforeTheStopIsDoneAndWhatComesLaterIsRefused) {
  ControlLoop loop(&plane(), &store(), [](std::vector<OutgoingMessage>) {}, {});
  loop.Start();
  std::atomic<int> num_done = 0;
  for (int i = 0; i < 200; ++i) {
    loop.Post([](ControlPlane&) {},
              [&](const absl::Status& committed) {
                EXPECT_OK(committed);
                ++num_done;
              });
  }
  loop.Stop();
  EXPECT_EQ(num_done, 200);
  EXPECT_EQ(loop.Run([](ControlPlane&) {}).code(), absl::StatusCode::kUnavailable);
}

TEST_F(ControlLoopTest, AFullQueueRefusesInsteadOfGrowing) {
  ControlLoop::Options options;
  options.max_queue = 10;
  ControlLoop loop(
      &plane(), &store(), [](std::vector<OutgoingMessage>) {}, options);
  loop.Start();
  Pause pause(&loop);
  std::atomic<int> num_refused = 0;
  std::atomic<int> num_committed = 0;
  for (int i = 0; i < 30; ++i) {
    loop.Post(
        [](ControlPlane&) {},
        [&](const absl::Status& committed) { ++(committed.ok() ? num_committed : num_refused); });
  }
  EXPECT_EQ(num_refused, 20);
  pause.End();
  loop.Stop();
  EXPECT_EQ(num_committed, 10);
}

TEST_F(ControlLoopTest, WhatWaitsHasABoundInBytesAndRoomComesBack) {
  ControlLoop::Options options;
  options.max_queue_bytes = 100;
  ControlLoop loop(
      &plane(), &store(), [](std::vector<OutgoingMessage>) {}, options);
  std::atomic<int> num_refused = 0;
  std::atomic<int> num_committed = 0;
  const auto post = [&](size_t bytes) {
    loop.Post(
        [](ControlPlane&) {},
        [&](const absl::Status& committed) { ++(committed.ok() ? num_committed : num_refused); },
        bytes);
  };
  loop.Start();
  for (int round = 1; round <= 2; ++round) {
    Pause pause(&loop);
    post(60);
    post(40);
    post(1);  // no room
    post(0);  // holds nothing that is counted
    EXPECT_EQ(num_refused, round);
    pause.End();
    EXPECT_OK(loop.Run([](ControlPlane&) {}));
    EXPECT_EQ(num_committed, 3 * round);
  }
  post(1000);  // larger than the bound, but alone
  loop.Stop();
  EXPECT_EQ(num_committed, 7);
}

TEST_F(ControlLoopTest, TimePassesWithoutAnybodyAskingForAnything) {
  Submit(testing::MakePlan(1, 4));
  Join("w1", "a");
  std::promise<void> revoked;
  bool seen = false;  // of the control thread alone
  ControlLoop::Options options;
  options.tick_interval = absl::Milliseconds(10);
  ControlLoop loop(
      &plane(), &store(),
      [&](const std::vector<OutgoingMessage>& messages) {
        for (const OutgoingMessage& message : messages) {
          if (std::holds_alternative<RevokeMessage>(message.body) && !std::exchange(seen, true)) {
            revoked.set_value();
          }
        }
      },
      options);
  loop.Start();
  clock().Advance(absl::Seconds(61));
  revoked.get_future().wait();  // the lease expired by a tick
  loop.Stop();
  EXPECT_TRUE(plane().scheduler().leases().empty());
}

TEST_F(ControlLoopTest, ASnapshotShowsWhatWasCommittedBeforeIt) {
  std::atomic<int> num_messages = 0;
  ControlLoop loop(&plane(), &store(),
                   [&](std::vector<OutgoingMessage> messages) {
                     num_messages += static_cast<int>(messages.size());
                   },
                   {});
  loop.Start();
  EXPECT_TRUE(loop.Snapshot()->sweeps.empty());
  ASSERT_OK(loop.Run([](ControlPlane& plane) {
    EXPECT_OK(plane.HandleSubmit({testing::MakePlan(1, 4), "", "ada", "spec"}));
  }));
  EXPECT_EQ(loop.Snapshot(/*fresh=*/true)->sweeps.size(), 1u);
  HelloCommand hello;
  hello.hello.worker_id = "w1";
  hello.hello.incarnation = "a";
  hello.hello.slots.push_back({.index = 0});
  ASSERT_OK(loop.Run([&](ControlPlane& plane) { EXPECT_OK(plane.HandleHello(hello)); }));
  EXPECT_EQ(loop.Snapshot(/*fresh=*/true)->workers.size(), 1u);
  EXPECT_GE(num_messages, 1) << "the welcome";
  loop.Stop();
}

TEST(MetersTest, TheRateIsOfTheLastTenFullSeconds) {
  RateMeter meter;
  for (int second = 100; second < 120; ++second) meter.Add(absl::Seconds(second), 50);
  EXPECT_DOUBLE_EQ(meter.PerSecond(absl::Seconds(120)), 50);
  EXPECT_DOUBLE_EQ(meter.PerSecond(absl::Seconds(125)), 25);
  EXPECT_DOUBLE_EQ(meter.PerSecond(absl::Seconds(100000)), 0);
}

TEST(MetersTest, TheNinetyNinthPercentile) {
  LatencyMeter meter;
  EXPECT_EQ(meter.P99(), absl::ZeroDuration());
  for (int i = 1; i <= 100; ++i) meter.Add(absl::Milliseconds(i));
  EXPECT_EQ(meter.P99(), absl::Milliseconds(99));
}

}  // namespace
}  // namespace assay::coordinator
