// What the driver says of GPUs, and how they become the places of runners. The driver is the fake
// one of this folder.
#include <gtest/gtest.h>

#include "base/status.h"
#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "worker/agent/gpu_gangs.h"
#include "worker/agent/gpu_inventory.h"

namespace assay::worker {
namespace {

using testing::BinaryPath;
using testing::RunProgram;

const char* const kFakeDriver = "../tests/bin/fake-driver";

std::vector<Gpu> SomeGpus(int count) {
  std::vector<Gpu> gpus;
  for (int i = 0; i < count; ++i) {
    gpus.push_back(
        {i, "GPU-" + std::string(3, static_cast<char>('a' + i)), "A100", int64_t{80} << 30});
  }
  return gpus;
}

std::vector<int> Indices(const absl::StatusOr<std::vector<Gpu>>& gpus) {
  EXPECT_OK(gpus.status());
  std::vector<int> indices;
  for (const Gpu& gpu : gpus.value_or(std::vector<Gpu>())) indices.push_back(gpu.index);
  return indices;
}

TEST(GpuInventoryTest, TellsWhatTheDriverTells) {
  ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<GpuInventory> inventory,
      GpuInventory::Open(BinaryPath(std::string(kFakeDriver) + "/libnvidia-ml.so.1")));
  ASSERT_EQ(inventory->gpus().size(), 4u);
  const Gpu& gpu = inventory->gpus()[3];
  EXPECT_EQ(gpu.index, 3);
  EXPECT_EQ(gpu.uuid, "GPU-fake-3");
  EXPECT_EQ(gpu.name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(gpu.memory_bytes, int64_t{80} << 30);
  EXPECT_EQ(inventory->driver_versions(), "driver 580.159.04, CUDA 13.0");
  ASSERT_OK_AND_ASSIGN(const int64_t used, inventory->MemoryUsed(gpu));
  EXPECT_EQ(used, int64_t{3} << 30);
  Gpu gone = gpu;
  gone.uuid = "GPU-gone";
  EXPECT_EQ(Message(inventory->MemoryUsed(gone).status()), "the NVIDIA driver: GPU 3: Not Found");
}

TEST(GpuInventoryTest, AMachineWithoutADriverSaysSo) {
  const absl::Status status = GpuInventory::Open("libno-such-driver.so.1").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Message(status).starts_with("no NVIDIA driver: ")) << Message(status);
  // Some other library is no driver.
  EXPECT_EQ(GpuInventory::Open("libc.so.6").status().code(), absl::StatusCode::kUnavailable);
}

TEST(SelectGpusTest, TakesAllOrThoseNamedInTheirOrder) {
  const std::vector<Gpu> gpus = SomeGpus(4);
  EXPECT_EQ(Indices(SelectGpus("all", "", gpus)), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(Indices(SelectGpus("3,GPU-bbb", "", gpus)), (std::vector<int>{3, 1}));
  EXPECT_EQ(Indices(SelectGpus("all", "2,GPU-d", gpus)), (std::vector<int>{2, 3}))
      << "CUDA_VISIBLE_DEVICES bounds it";
}

TEST(SelectGpusTest, RefusesWhatIsNotThereTwiceOrOfSeveralKinds) {
  std::vector<Gpu> gpus = SomeGpus(2);
  const auto error = [&gpus](const std::string& wanted, const std::string& visible) {
    return Message(SelectGpus(wanted, visible, gpus).status());
  };
  EXPECT_EQ(error("2", ""), "there is no GPU '2': this machine has 2, numbered from 0");
  EXPECT_EQ(error("0,", ""), "there is no GPU '': this machine has 2, numbered from 0");
  EXPECT_EQ(error("0,GPU-aaa", ""), "GPU 'GPU-aaa' is named twice in '0,GPU-aaa'");
  EXPECT_EQ(error("all", "MIG-1"),
            "CUDA_VISIBLE_DEVICES: there is no GPU 'MIG-1': this machine has 2, numbered from 0; "
            "or name GPUs instead of 'all'");
  gpus[1].name = "H100";
  EXPECT_EQ(error("all", ""),
            "GPU 0 is a A100 and GPU 1 a H100: samples of one worker come from one kind; start a "
            "worker for each");
  gpus.clear();
  EXPECT_EQ(error("all", ""), "this machine has no GPU");
}

TEST(FormGangsTest, SizesFollowEachOtherAndTheLastIsRepeated) {
  const auto sizes = [](int num_gpus, const std::vector<int>& wanted) {
    std::vector<size_t> formed;
    const auto gangs = FormGangs(SomeGpus(num_gpus), wanted);
    EXPECT_OK(gangs.status());
    for (const GpuGang& gang : gangs.value_or(std::vector<GpuGang>())) {
      formed.push_back(gang.gpus.size());
    }
    return formed;
  };
  EXPECT_EQ(sizes(3, {}), (std::vector<size_t>{1, 1, 1}));
  EXPECT_EQ(sizes(8, {4}), (std::vector<size_t>{4, 4}));
  EXPECT_EQ(sizes(8, {4, 2, 1}), (std::vector<size_t>{4, 2, 1, 1}));
}

TEST(FormGangsTest, RefusesGpusThatWouldBeLeftOver) {
  EXPECT_EQ(Message(FormGangs(SomeGpus(7), {4, 2}).status()),
            "7 GPUs do not divide into gangs of 4, then 2: 1 are left for one of 2");
  EXPECT_EQ(Message(FormGangs(SomeGpus(2), {2, 1}).status()),
            "2 GPUs do not divide into gangs of 2, then 1: none is left for one of 1");
}

TEST(GpuGangTest, ARunnerSeesItsOwnGpusNumberedFromZero) {
  ASSERT_OK_AND_ASSIGN(const std::vector<GpuGang> gangs, FormGangs(SomeGpus(4), {2}));
  EXPECT_EQ(gangs[1].device(), "cuda:0,1");
  EXPECT_EQ(gangs[1].environment(), "CUDA_VISIBLE_DEVICES=GPU-ccc,GPU-ddd");
  EXPECT_EQ(gangs[1].name(), "2x A100");
}

// Each GPU of a gang holds an equal share, so that the smallest bounds all.
TEST(GpuGangTest, TheSmallestGpuBoundsTheMemory) {
  std::vector<Gpu> gpus = SomeGpus(2);
  gpus[1].memory_bytes = int64_t{40} << 30;
  ASSERT_OK_AND_ASSIGN(const std::vector<GpuGang> gangs, FormGangs(gpus, {2}));
  EXPECT_EQ(gangs[0].memory_bytes(), 2 * (int64_t{38} << 30));
}

// The program -------------------------------------------------------------------------------------

testing::CommandResult Worker(std::vector<std::string> flags,
                              const std::vector<std::string>& environment) {
  flags.insert(flags.begin(), {BinaryPath("assay-worker"), "--models", "/nowhere", "--runner",
                               BinaryPath("../tests/bin/assay-fake-runner")});
  return RunProgram(flags, "", environment);
}

TEST(WorkerProgramTest, RefusesGpuFlagsThatCannotBeMetInOneLine) {
  const std::vector<std::string> driver = {"LD_LIBRARY_PATH=" + BinaryPath(kFakeDriver),
                                           "CUDA_VISIBLE_DEVICES="};
  EXPECT_EQ(Worker({"--gpus", "7"}, driver).err,
            "assay-worker: there is no GPU '7': this machine has 4, numbered from 0\n");
  EXPECT_EQ(Worker({"--gpus", "all", "--tensor-parallel-size", "3"}, driver).err,
            "assay-worker: 4 GPUs do not divide into gangs of 3: 1 are left for one of 3\n");
  EXPECT_EQ(Worker({"--tensor-parallel-size", "2"}, driver).err,
            "assay-worker: --tensor-parallel-size needs GPUs: add --gpus all\n");
  EXPECT_NE(Worker({"--gpus", "all", "--slots", "2"}, driver).exit_code, 0);
  std::vector<std::string> broken = driver;
  broken.push_back("FAKE_NVML_BROKEN=1");
  EXPECT_EQ(Worker({"--gpus", "all"}, broken).err,
            "assay-worker: the NVIDIA driver: cannot be used: Driver/library version mismatch\n");
}

}  // namespace
}  // namespace assay::worker
