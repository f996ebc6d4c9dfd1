// The live displays on a terminal: a pseudo-terminal plays the screen.
#include <absl/time/clock.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "cli/output/text.h"
#include "cli/progress_view.h"
#include "tests/testing/paths.h"
#include "tests/unit/cli/fake_coordinator.h"

namespace assay::cli {
namespace {

using testing::BinaryPath;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

// A program on a terminal of 80 x 24.
class OnTerminal {
 public:
  OnTerminal(std::vector<std::string> argv, const std::string& coordinator,
             const char* no_color = nullptr) {
    struct winsize size {};
    size.ws_col = 80;
    size.ws_row = 24;
    std::vector<char*> pointers;
    for (std::string& word : argv) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    const std::string variable = "ASSAY_COORDINATOR=" + coordinator;
    pid_ = ::forkpty(&fd_, nullptr, nullptr, &size);
    if (pid_ == 0) {
      ::putenv(const_cast<char*>(variable.c_str()));
      ::setenv("TERM", "xterm-256color", 1);
      ::setenv("LC_ALL", "C.UTF-8", 1);
      if (no_color != nullptr) {
        ::setenv("NO_COLOR", no_color, 1);
      } else {
        ::unsetenv("NO_COLOR");
      }
      ::execv(pointers[0], pointers.data());
      ::_exit(127);
    }
  }
  ~OnTerminal() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(fd_);
  }

  // Reads until `piece` was seen, or the program is gone.
  void ReadUntil(const std::string& piece) {
    char buffer[4096];
    while (piece.empty() || screen_.find(piece) == std::string::npos) {
      const ssize_t n = ::read(fd_, buffer, sizeof buffer);
      if (n <= 0) return;
      screen_.append(buffer, static_cast<size_t>(n));
    }
  }
  void Type(const std::string& keys) {
    ASSERT_EQ(::write(fd_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  // Reads the rest and returns the exit code.
  int Finish() {
    ReadUntil("");
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  const std::string& screen() const { return screen_; }

 private:
  int fd_ = -1;
  pid_t pid_ = -1;
  std::string screen_;
};

v1::Worker Worker() {
  v1::Worker worker;
  worker.set_worker_id("w1");
  worker.set_state(v1::Worker::STATE_ONLINE);
  worker.set_tokens_per_s(15'000);
  return worker;
}

v1::Sweep Sweep(int num_cells) {
  v1::Sweep sweep;
  sweep.set_id("sweep-1");
  sweep.set_name("demo");
  sweep.set_state(v1::SWEEP_STATE_ACTIVE);
  sweep.set_num_units(num_cells * 100);
  sweep.set_tokens_done(500);
  sweep.set_tokens_expected(1000);
  sweep.set_eta_us(30'000'000);
  for (int i = 0; i < num_cells; ++i) {
    v1::CellStatus* cell = sweep.add_cells();
    cell->set_cell_id(i + 1);
    cell->set_model("tiny");
    cell->mutable_method()->set_method("rtn");
    cell->set_state(i == num_cells - 1 ? v1::CellStatus::STATE_RUNNING
                                       : v1::CellStatus::STATE_QUEUED);
    cell->set_num_units(100);
  }
  return sweep;
}

TEST(TerminalTest, TopGivesTheScreenBackOnCtrlC) {
  FakeCoordinator fake;
  *fake.fleet.add_workers() = Worker();
  fake.fleet_goes_on = true;
  OnTerminal top({BinaryPath("assay"), "top"}, fake.address());
  top.ReadUntil("w1");
  top.Type("\x03");  // Ctrl-C
  EXPECT_EQ(top.Finish(), 130);
  EXPECT_TRUE(top.screen().starts_with("\x1b[?1049h\x1b[?25l"));
  EXPECT_THAT(top.screen(), HasSubstr("15.0k"));
  EXPECT_THAT(top.screen(), HasSubstr("\x1b[?25h\x1b[?1049l"));
}

TEST(TerminalTest, TopLeavesTheScreenAloneWithoutACoordinator) {
  OnTerminal top({BinaryPath("assay"), "top"}, "127.0.0.1:1");
  EXPECT_EQ(top.Finish(), 69);
  EXPECT_THAT(top.screen(), Not(HasSubstr("\x1b")));
}

TEST(TerminalTest, WatchRedrawsInPlaceAndShowsTheCursorAgain) {
  FakeCoordinator fake;
  fake.sweep = Sweep(2);
  v1::Sweep done = fake.sweep;
  done.set_state(v1::SWEEP_STATE_DONE);
  fake.watched = {fake.sweep, done};
  *fake.fleet.add_workers() = Worker();
  OnTerminal watch({BinaryPath("assay"), "sweep", "watch", "sweep-1"}, fake.address());
  EXPECT_EQ(watch.Finish(), 0);
  EXPECT_THAT(watch.screen(), HasSubstr("\x1b[?25l"));
  EXPECT_THAT(watch.screen(), HasSubstr("worker w1"));
  EXPECT_THAT(watch.screen(), HasSubstr("█"));
  EXPECT_THAT(watch.screen(), HasSubstr("A\r"));  // the cursor went up
  EXPECT_THAT(watch.screen(), EndsWith("\x1b[?25h"));
}

TEST(TerminalTest, NoColorIsHonoured) {
  FakeCoordinator fake;
  fake.sweep = Sweep(2);
  OnTerminal coloured({BinaryPath("assay"), "sweep", "ls"}, fake.address());
  EXPECT_EQ(coloured.Finish(), 0);
  EXPECT_THAT(coloured.screen(), HasSubstr("\x1b[1m"));
  OnTerminal plain({BinaryPath("assay"), "sweep", "ls"}, fake.address(), "1");
  EXPECT_EQ(plain.Finish(), 0);
  EXPECT_THAT(plain.screen(), Not(HasSubstr("\x1b")));
}

TEST(SweepLinesTest, FitTheScreenAndKeepWhatRuns) {
  const ViewOptions options{.columns = 60, .rows = 14};
  const std::vector<std::string> lines = SweepLines(Sweep(40), {Worker()}, absl::Now(), options);
  EXPECT_LT(lines.size(), 14u);
  std::string all;
  for (const std::string& line : lines) all += line + "\n";
  EXPECT_THAT(all, HasSubstr("running"));
  EXPECT_THAT(all, HasSubstr("more: "));
  EXPECT_THAT(all, HasSubstr("\n  40  "));  // the running cell is the last of forty
}

TEST(SweepLinesTest, ProgressIsCountedInTokens) {
  v1::Sweep sweep = Sweep(1);
  sweep.set_num_units_done(90);
  EXPECT_DOUBLE_EQ(FractionDone(sweep), 0.5);
  sweep.set_tokens_expected(0);
  EXPECT_DOUBLE_EQ(FractionDone(sweep), 0.9);
  sweep.set_state(v1::SWEEP_STATE_DONE);
  EXPECT_DOUBLE_EQ(FractionDone(sweep), 1);
}

TEST(SpeedSmootherTest, AMomentWithoutTokensDoesNotEmptyTheEstimate) {
  SpeedSmoother smoother;
  v1::Sweep sweep = Sweep(1);  // 500 tokens are left
  sweep.set_tokens_per_s(100);
  EXPECT_EQ(smoother.Smooth(sweep, absl::Seconds(100)).eta_us(), 5'000'000);
  sweep.set_tokens_per_s(0);
  const v1::Sweep pause = smoother.Smooth(sweep, absl::Seconds(101));
  EXPECT_NEAR(pause.tokens_per_s(), 90.5, 0.1);
  EXPECT_NEAR(static_cast<double>(pause.eta_us()), 5.52e6, 0.01e6);
  const v1::Sweep stopped = smoother.Smooth(sweep, absl::Seconds(200));
  EXPECT_EQ(stopped.tokens_per_s(), 0);
  EXPECT_EQ(stopped.eta_us(), 0);
}

}  // namespace
}  // namespace assay::cli
