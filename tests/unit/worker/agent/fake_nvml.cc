// A driver's management library of four GPUs, for machines without one: GPU i has i GiB in use.
// With $FAKE_NVML_BROKEN it answers as after an update of the driver under a running system.
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {

struct NvmlDevice {
  unsigned index;
};
struct MemoryInfo {
  unsigned long long total, free, used;  // NOLINT(google-runtime-int): the interface's own
};

static NvmlDevice devices[] = {{0}, {1}, {2}, {3}};
constexpr unsigned kNumDevices = 4;
constexpr int kInvalidArgument = 2;
constexpr int kNotFound = 6;
constexpr int kVersionMismatch = 18;

int nvmlInit_v2() { return std::getenv("FAKE_NVML_BROKEN") != nullptr ? kVersionMismatch : 0; }
int nvmlShutdown() { return 0; }
const char* nvmlErrorString(int error) {
  return error == kVersionMismatch ? "Driver/library version mismatch" : "Not Found";
}
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  std::snprintf(text, size, "580.159.04");
  return 0;
}
int nvmlSystemGetCudaDriverVersion_v2(int* version) {
  *version = 13000;
  return 0;
}
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = kNumDevices;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, NvmlDevice** device) {
  if (index >= kNumDevices) return kInvalidArgument;
  *device = &devices[index];
  return 0;
}
int nvmlDeviceGetHandleByUUID(const char* uuid, NvmlDevice** device) {
  if (std::strncmp(uuid, "GPU-fake-", 9) != 0) return kNotFound;
  return nvmlDeviceGetHandleByIndex_v2(static_cast<unsigned>(uuid[9] - '0'), device);
}
int nvmlDeviceGetName(NvmlDevice*, char* text, unsigned size) {
  std::snprintf(text, size, "NVIDIA H100 80GB HBM3");
  return 0;
}
int nvmlDeviceGetUUID(NvmlDevice* device, char* text, unsigned size) {
  std::snprintf(text, size, "GPU-fake-%u", device->index);
  return 0;
}
int nvmlDeviceGetMemoryInfo(NvmlDevice* device, MemoryInfo* memory) {
  memory->total = 80ULL << 30;
  memory->used = static_cast<unsigned long long>(device->index) << 30;
  memory->free = memory->total - memory->used;
  return 0;
}

}  // extern "C"
