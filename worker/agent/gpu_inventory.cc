#include "worker/agent/gpu_inventory.h"

#include <dlfcn.h>

#include <array>
#include <utility>

#include "base/status.h"
#include "worker/wire/utf8.h"

namespace assay::worker {
namespace {

// Of NVML's stable interface (NVIDIA Management Library API Reference), what is used here.
using Return = int;
using Device = struct NvmlDevice*;
constexpr Return kSuccess = 0;
struct MemoryInfo {
  unsigned long long total, free, used;  // NOLINT(google-runtime-int): the interface's own
};
constexpr size_t kTextBytes = 96;  // the longest of its names and UUIDs

}  // namespace

struct GpuInventory::Library {
  explicit Library(void* opened) : handle(opened) {}
  ~Library() {
    if (initialized) shutdown();
    ::dlclose(handle);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  template <typename Function>
  absl::Status Find(const char* name, Function** function) {
    *function = reinterpret_cast<Function*>(::dlsym(handle, name));
    if (*function != nullptr) return absl::OkStatus();
    return Unavailable("the NVIDIA driver's library has no {}: it is too old", name);
  }

  absl::Status FindAll() {
    ASSAY_RETURN_IF_ERROR(Find("nvmlInit_v2", &init));
    ASSAY_RETURN_IF_ERROR(Find("nvmlShutdown", &shutdown));
    ASSAY_RETURN_IF_ERROR(Find("nvmlErrorString", &error_string));
    ASSAY_RETURN_IF_ERROR(Find("nvmlSystemGetDriverVersion", &driver_version));
    ASSAY_RETURN_IF_ERROR(Find("nvmlSystemGetCudaDriverVersion_v2", &cuda_version));
    ASSAY_RETURN_IF_ERROR(Find("nvmlDeviceGetCount_v2", &device_count));
    ASSAY_RETURN_IF_ERROR(Find("nvmlDeviceGetHandleByIndex_v2", &device_by_index));
    ASSAY_RETURN_IF_ERROR(Find("nvmlDeviceGetHandleByUUID", &device_by_uuid));
    ASSAY_RETURN_IF_ERROR(Find("nvmlDeviceGetName", &device_name));
    ASSAY_RETURN_IF_ERROR(Find("nvmlDeviceGetUUID", &device_uuid));
    return Find("nvmlDeviceGetMemoryInfo", &memory_info);
  }

  absl::Status Check(Return result, const std::string& what) const {
    if (result == kSuccess) return absl::OkStatus();
    return Unavailable("the NVIDIA driver: {}: {}", what, ValidUtf8(error_string(result)));
  }

  void* const handle;
  bool initialized = false;
  Return (*init)() = nullptr;
  Return (*shutdown)() = nullptr;
  const char* (*error_string)(Return) = nullptr;
  Return (*driver_version)(char*, unsigned) = nullptr;
  Return (*cuda_version)(int*) = nullptr;
  Return (*device_count)(unsigned*) = nullptr;
  Return (*device_by_index)(unsigned, Device*) = nullptr;
  Return (*device_by_uuid)(const char*, Device*) = nullptr;
  Return (*device_name)(Device, char*, unsigned) = nullptr;
  Return (*device_uuid)(Device, char*, unsigned) = nullptr;
  Return (*memory_info)(Device, MemoryInfo*) = nullptr;
};

absl::StatusOr<std::unique_ptr<GpuInventory>> GpuInventory::Open(const std::string& library) {
  void* const handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = ::dlerror();
    return NotFound("no NVIDIA driver: {}", why != nullptr ? why : library);
  }
  std::unique_ptr<GpuInventory> inventory(new GpuInventory(std::make_unique<Library>(handle)));
  ASSAY_RETURN_IF_ERROR(inventory->ReadAll());
  return inventory;
}

GpuInventory::GpuInventory(std::unique_ptr<Library> library) : library_(std::move(library)) {}
GpuInventory::~GpuInventory() = default;

absl::Status GpuInventory::ReadAll() {
  Library& nvml = *library_;
  ASSAY_RETURN_IF_ERROR(nvml.FindAll());
  ASSAY_RETURN_IF_ERROR(nvml.Check(nvml.init(), "cannot be used"));
  nvml.initialized = true;

  std::array<char, kTextBytes> text{};
  ASSAY_RETURN_IF_ERROR(nvml.Check(nvml.driver_version(text.data(), kTextBytes), "its version"));
  int cuda = 0;  // 13000 is 13.0
  ASSAY_RETURN_IF_ERROR(nvml.Check(nvml.cuda_version(&cuda), "its CUDA version"));
  driver_versions_ =
      fmt::format("driver {}, CUDA {}.{}", ValidUtf8(text.data()), cuda / 1000, cuda % 1000 / 10);

  unsigned count = 0;
  ASSAY_RETURN_IF_ERROR(nvml.Check(nvml.device_count(&count), "the number of GPUs"));
  for (unsigned i = 0; i < count; ++i) {
    const std::string what = fmt::format("GPU {}", i);
    Device device = nullptr;
    ASSAY_RETURN_IF_ERROR(nvml.Check(nvml.device_by_index(i, &device), what));
    Gpu gpu;
    gpu.index = static_cast<int>(i);
    ASSAY_RETURN_IF_ERROR(nvml.Check(nvml.device_name(device, text.data(), kTextBytes), what));
    gpu.name = ValidUtf8(text.data());
    ASSAY_RETURN_IF_ERROR(nvml.Check(nvml.device_uuid(device, text.data(), kTextBytes), what));
    gpu.uuid = ValidUtf8(text.data());
    MemoryInfo memory{};
    ASSAY_RETURN_IF_ERROR(nvml.Check(nvml.memory_info(device, &memory), what));
    gpu.memory_bytes = static_cast<int64_t>(memory.total);
    gpus_.push_back(std::move(gpu));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> GpuInventory::MemoryUsed(const Gpu& gpu) const {
  const std::string what = fmt::format("GPU {}", gpu.index);
  Device device = nullptr;
  ASSAY_RETURN_IF_ERROR(library_->Check(library_->device_by_uuid(gpu.uuid.c_str(), &device), what));
  MemoryInfo memory{};
  ASSAY_RETURN_IF_ERROR(library_->Check(library_->memory_info(device, &memory), what));
  return static_cast<int64_t>(memory.used);
}

}  // namespace assay::worker
