// Looking at processes that are not our own children: runners and graders belong to their worker.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace assay::chaos {

// Children of any thread of `parent`.
std::vector<pid_t> ChildrenOf(pid_t parent);

// Children of `parent` whose command line has `program`, zombies left out.
std::vector<pid_t> ChildrenOf(pid_t parent, const std::string& program);

// Whether it exists and is stopped by a signal.
bool IsStopped(pid_t process);

}  // namespace assay::chaos
