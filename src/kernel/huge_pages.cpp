#include "kernel/huge_pages.h"

#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <bit>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "stasis/fd.h"

namespace stasis::kernel {
namespace {

std::map<uint64_t, uint32_t> find_devices() {
  std::map<uint64_t, uint32_t> devices;
  constexpr std::string_view kPrefix = "hugepages-";
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/kernel/mm/hugepages", ignored)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(kPrefix)) continue;
    const uint64_t size = std::strtoull(name.c_str() + kPrefix.size(), nullptr, 10) << 10;
    if (size == 0) continue;
    const auto shift = static_cast<uint32_t>(std::countr_zero(size));
    // An empty one reserves no page.
    Fd file(::memfd_create("device", MFD_CLOEXEC | MFD_HUGETLB | shift << MFD_HUGE_SHIFT));
    struct stat status = {};
    if (file && ::fstat(file.get(), &status) == 0) devices[status.st_dev] = shift;
  }
  return devices;
}

}  // namespace

uint32_t huge_page_shift_of(uint64_t device) {
  static const std::map<uint64_t, uint32_t> devices = find_devices();
  const auto found = devices.find(device);
  return found == devices.end() ? 0 : found->second;
}

}  // namespace stasis::kernel
