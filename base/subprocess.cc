#include "base/subprocess.h"

#include <absl/time/clock.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/status.h"

extern char** environ;

namespace assay {
namespace {

struct Pipe {
  int read = -1;
  int write = -1;
};

absl::Status MakePipe(Pipe* pipe) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return Unavailable("pipe failed: {}", std::strerror(errno));
  pipe->read = ends[0];
  pipe->write = ends[1];
  return absl::OkStatus();
}

void CloseIfOpen(int fd) {
  if (fd >= 0) ::close(fd);
}

void ClosePipe(const Pipe& pipe) {
  CloseIfOpen(pipe.read);
  CloseIfOpen(pipe.write);
}

std::vector<std::string> MergedEnvironment(const std::vector<std::string>& added) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view existing(*entry);
    const std::string_view name = existing.substr(0, existing.find('=') + 1);
    bool replaced = false;
    for (const std::string& variable : added) replaced |= variable.starts_with(name);
    if (!replaced) merged.emplace_back(existing);
  }
  merged.insert(merged.end(), added.begin(), added.end());
  return merged;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& s : strings) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Runs in the child between fork and exec: only async-signal-safe calls.
[[noreturn]] void Exec(const Subprocess::Options& options, const Pipe& in, const Pipe& out,
                       int error_pipe, pid_t parent, char* const* argv, char* const* envp) {
  if (options.die_with_parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);  // the parent died before the line above
  }
  if (options.own_process_group) ::setpgid(0, 0);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  bool ok = true;
  if (in.read >= 0) {
    ok &= ::dup2(in.read, STDIN_FILENO) >= 0;
  } else {
    const int null = ::open("/dev/null", O_RDONLY);
    ok &= null >= 0 && ::dup2(null, STDIN_FILENO) >= 0;
  }
  if (out.write >= 0) {
    ok &= ::dup2(out.write, STDOUT_FILENO) >= 0;
  } else if (!options.stdout_path.empty()) {
    const int fd = ::open(options.stdout_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ok &= fd >= 0 && ::dup2(fd, STDOUT_FILENO) >= 0;
  }
  if (!options.stderr_path.empty()) {
    const int fd = ::open(options.stderr_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ok &= fd >= 0 && ::dup2(fd, STDERR_FILENO) >= 0;
  }
  if (ok) ::execvpe(argv[0], argv, envp);
  const int code = errno;
  [[maybe_unused]] const ssize_t n = ::write(error_pipe, &code, sizeof code);
  ::_exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Subprocess>> Subprocess::Start(Options options) {
  ASSAY_CHECK(!options.argv.empty());
  Pipe in, out, error;
  absl::Status status = MakePipe(&error);
  if (status.ok() && options.pipe_stdin) status = MakePipe(&in);
  if (status.ok() && options.pipe_stdout) status = MakePipe(&out);
  if (!status.ok()) {
    ClosePipe(in), ClosePipe(out), ClosePipe(error);
    return status;
  }
  std::vector<std::string> environment = MergedEnvironment(options.environment);
  const std::vector<char*> argv = Pointers(options.argv);
  const std::vector<char*> envp = Pointers(environment);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) Exec(options, in, out, error.write, parent, argv.data(), envp.data());
  const int fork_errno = errno;
  CloseIfOpen(in.read);
  CloseIfOpen(out.write);
  CloseIfOpen(error.write);
  if (pid < 0) {
    CloseIfOpen(in.write), CloseIfOpen(out.read), CloseIfOpen(error.read);
    return Unavailable("{}: fork failed: {}", options.argv[0], std::strerror(fork_errno));
  }
  std::unique_ptr<Subprocess> process(new Subprocess(pid, in.write, out.read));
  int exec_errno = 0;
  ssize_t n;
  do {
    n = ::read(error.read, &exec_errno, sizeof exec_errno);
  } while (n < 0 && errno == EINTR);
  ::close(error.read);
  if (n == sizeof exec_errno) {
    return NotFound("{}: cannot start: {}", options.argv[0], std::strerror(exec_errno));
  }
  return process;
}

Subprocess::~Subprocess() {
  if (running()) {
    ::kill(pid_, SIGKILL);
    Wait(absl::InfiniteDuration());
  }
  CloseIfOpen(stdin_fd_);
  CloseIfOpen(stdout_fd_);
}

void Subprocess::CloseStdin() {
  CloseIfOpen(stdin_fd_);
  stdin_fd_ = -1;
}

bool Subprocess::running() { return !Wait(absl::ZeroDuration()).has_value(); }

std::optional<int> Subprocess::Wait(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!wait_status_.has_value()) {
    int wait_status = 0;
    const bool forever = timeout == absl::InfiniteDuration();
    const pid_t reaped = ::waitpid(pid_, &wait_status, forever ? 0 : WNOHANG);
    if (reaped == pid_) {
      wait_status_ = wait_status;
    } else if (reaped < 0 && errno != EINTR) {
      wait_status_ = 0;  // somebody else reaped it: it is gone
    } else if (!forever) {
      if (absl::Now() >= deadline) return std::nullopt;
      absl::SleepFor(absl::Milliseconds(2));
    }
  }
  return wait_status_;
}

void Subprocess::Signal(int signal_number) {
  if (running()) ::kill(pid_, signal_number);
}

void Subprocess::Stop(absl::Duration grace) {
  Signal(SIGTERM);
  if (Wait(grace).has_value()) return;
  Signal(SIGKILL);
  Wait(absl::InfiniteDuration());
}

std::string DescribeWaitStatus(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int number = WTERMSIG(wait_status);
    return fmt::format("signal {} ({})", number, ::strsignal(number));
  }
  return fmt::format("exit status {}", WEXITSTATUS(wait_status));
}

}  // namespace assay
