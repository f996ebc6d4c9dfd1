// What deploy/pack.sh packs starts on a machine that has nothing of ours: no library path, another
// folder, and of this machine only glibc, libstdc++ and, with CUDA, NVIDIA's libraries.
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"

namespace assay {
namespace {

namespace fs = std::filesystem;
using testing::BinaryPath;
using testing::CommandResult;
using testing::RunProgram;
using testing::TemporaryDirectory;

constexpr const char* kPrograms[] = {"assay", "assay-coordinator", "assay-worker", "assay-runner",
                                     "assay-grader"};
constexpr const char* kOfTheMachine[] = {"libc.so",      "libm.so",       "libdl.so", "librt.so",
                                         "libresolv.so", "libpthread.so", "libgcc_s", "libstdc++",
                                         "libcu",        "libnccl",       "libnvidia"};

bool MayBeOfTheMachine(const std::string& path) {
  const std::string name = fs::path(path).filename();
  for (const char* library : kOfTheMachine) {
    if (name.starts_with(library)) return true;
  }
  return false;
}

class PackTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const CommandResult pack =
        RunProgram({testing::SourcePath("deploy/pack.sh"), directory_ / "assay.tar.zst",
                    fs::path(BinaryPath("assay")).parent_path().parent_path()});
    ASSERT_EQ(pack.exit_code, 0) << pack.err;
    fs::create_directory(directory_ / "elsewhere");
    const CommandResult unpack =
        RunProgram({"tar", "-C", directory_ / "elsewhere", "--strip-components=1", "-xf",
                    directory_ / "assay.tar.zst"});
    ASSERT_EQ(unpack.exit_code, 0) << unpack.err;
  }

  CommandResult Run(std::vector<std::string> environment, const std::string& program,
                    const std::string& argument) {
    std::vector<std::string> argv = {"env", "-i", "-C", "/"};
    argv.insert(argv.end(), environment.begin(), environment.end());
    argv.push_back(directory_ / ("elsewhere/bin/" + program));
    argv.push_back(argument);
    return RunProgram(argv);
  }

  const TemporaryDirectory directory_;
};

TEST_F(PackTest, EveryProgramStartsFromAnyFolderByItself) {
  for (const char* program : kPrograms) {
    const CommandResult version = Run({}, program, "--version");
    EXPECT_EQ(version.exit_code, 0) << program << ": " << version.err;
    EXPECT_NE(version.out, "") << program;
    // The loader says what it took, and runs nothing.
    const CommandResult loaded = Run({"LD_TRACE_LOADED_OBJECTS=1"}, program, "--version");
    std::istringstream lines(loaded.out);
    for (std::string line; std::getline(lines, line);) {
      const size_t path = line.find("=> ");
      if (path == std::string::npos) continue;
      const std::string library = line.substr(path + 3);
      EXPECT_TRUE(library.starts_with(directory_.path()) || MayBeOfTheMachine(library))
          << program << " takes " << library;
    }
  }
}

TEST_F(PackTest, TheDemosDataIsPackedWithIt) {
  for (const char* file : {"demo.yaml", "demo-cuda.yaml", "models/tiny-qwen2-1m/model.safetensors",
                           "benchmarks/arith500/arith500.jsonl"}) {
    EXPECT_TRUE(fs::exists(directory_ / ("elsewhere/share/assay/" + std::string(file)))) << file;
  }
}

}  // namespace
}  // namespace assay
