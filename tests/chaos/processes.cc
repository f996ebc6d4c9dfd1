#include "tests/chaos/processes.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/status.h"

namespace assay::chaos {
namespace {

std::string ReadProc(pid_t process, const char* file) {
  std::ifstream stream(fmt::format("/proc/{}/{}", process, file), std::ios::binary);
  std::stringstream text;
  text << stream.rdbuf();
  return text.str();
}

// The state letter of proc(5): after the name, which may hold anything in its parentheses.
char StateOf(pid_t process) {
  const std::string stat = ReadProc(process, "stat");
  const size_t end_of_name = stat.rfind(')');
  return end_of_name == std::string::npos || end_of_name + 2 >= stat.size() ? '?'
                                                                            : stat[end_of_name + 2];
}

}  // namespace

std::vector<pid_t> ChildrenOf(pid_t parent) {
  std::vector<pid_t> children;
  std::error_code error;  // the process may end meanwhile
  for (std::filesystem::directory_iterator task(fmt::format("/proc/{}/task", parent), error), end;
       !error && task != end; task.increment(error)) {
    std::ifstream file(task->path() / "children");
    pid_t pid = 0;
    while (file >> pid) children.push_back(pid);
  }
  return children;
}

std::vector<pid_t> ChildrenOf(pid_t parent, const std::string& program) {
  std::vector<pid_t> matching;
  for (const pid_t pid : ChildrenOf(parent)) {
    if (StateOf(pid) != 'Z' && ReadProc(pid, "cmdline").find(program) != std::string::npos) {
      matching.push_back(pid);
    }
  }
  return matching;
}

bool IsStopped(pid_t process) { return StateOf(process) == 'T'; }

}  // namespace assay::chaos
