// The runner as the agent's child: commands in on one descriptor, events out on another.
//
// Two threads. One reads commands into a queue, so that the agent never waits for the engine; the
// other owns the model and alternates between commands and steps of the engine:
//
//   frames --> [reader] --> queue --> [engine loop: commands, Step(), events] --> frames
//
// Between two steps every queued command is taken, so a cancelled unit costs at most a step more.
// Progress goes out at least every half second while anything runs. The process ends with 0 when
// its input ends, wherever the engine is; an error of the engine or of the stream is reported as
// Fatal and ends it with another code, for after it nothing that the model says can be trusted.
#pragma once

#include <string>

namespace assay::worker {

// Models run on `device` (EngineOptions). Returns the exit code.
int ServeRunner(int in_fd, int out_fd, const std::string& device);

}  // namespace assay::worker
