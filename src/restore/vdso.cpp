#include "restore/vdso.h"

#include <elf.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "kernel/vdso.h"

namespace stasis::restore {

using schema::Mapping;

namespace {

template <typename T>
std::optional<T> read_at(std::string_view bytes, uint64_t offset) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return std::nullopt;
  T object;
  std::memcpy(&object, bytes.data() + offset, sizeof object);
  return object;
}

struct Function {
  uint64_t offset = 0;
  uint64_t size = 0;
};

// A vDSO is linked to address 0 and is one segment, so addresses in it are offsets.
std::map<std::string, Function> functions_of(std::string_view vdso) {
  constexpr uint64_t kMostSymbols = 1024;
  std::map<std::string, Function> found;
  const auto header = read_at<Elf64_Ehdr>(vdso, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return found;
  for (unsigned i = 0; i < header->e_shnum; ++i) {
    const auto section = read_at<Elf64_Shdr>(vdso, header->e_shoff + uint64_t{i} * sizeof(Elf64_Shdr));
    if (!section || section->sh_type != SHT_DYNSYM) continue;
    const auto names =
        read_at<Elf64_Shdr>(vdso, header->e_shoff + uint64_t{section->sh_link} * sizeof(Elf64_Shdr));
    if (!names) continue;
    const uint64_t count = std::min(section->sh_size / sizeof(Elf64_Sym), kMostSymbols);
    for (uint64_t number = 0; number < count; ++number) {
      const auto symbol = read_at<Elf64_Sym>(vdso, section->sh_offset + number * sizeof(Elf64_Sym));
      if (!symbol || ELF64_ST_TYPE(symbol->st_info) != STT_FUNC || symbol->st_shndx == SHN_UNDEF) continue;
      const uint64_t at = names->sh_offset + symbol->st_name;
      if (at >= vdso.size() || symbol->st_value >= vdso.size()) continue;
      const std::string_view rest = vdso.substr(at);
      found[std::string(rest.substr(0, rest.find('\0')))] = {symbol->st_value, symbol->st_size};
    }
  }
  return found;
}

// Those that are a system call with the same arguments.
std::optional<uint32_t> call_of(std::string_view name) {
  if (name.starts_with("__vdso_")) name.remove_prefix(std::string_view("__vdso_").size());
  static constexpr std::pair<std::string_view, uint32_t> kCalls[] = {
      {"clock_gettime", SYS_clock_gettime},
      {"clock_getres", SYS_clock_getres},
      {"gettimeofday", SYS_gettimeofday},
      {"time", SYS_time},
      {"getcpu", SYS_getcpu},
      {"getrandom", SYS_getrandom},
  };
  for (const auto& [known, number] : kCalls) {
    if (known == name) return number;
  }
  return std::nullopt;
}

void put(std::string& code, uint64_t value, size_t size) {
  code.append(reinterpret_cast<const char*>(&value), size);
}

std::string jump_to(uint64_t address) {
  std::string code("\xff\x25\0\0\0\0", 6);  // jmp *0(%rip)
  put(code, address, sizeof address);
  return code;
}

std::string make_call(uint32_t number) {
  std::string code("\xb8");  // mov $number, %eax; syscall; ret
  put(code, number, sizeof number);
  return code + "\x0f\x05\xc3";
}

std::string fail() {
  std::string code("\x48\xc7\xc0");  // mov $-ENOSYS, %rax; ret
  put(code, static_cast<uint32_t>(-ENOSYS), sizeof(uint32_t));
  return code + "\xc3";
}

}  // namespace

std::string redirect_vdso(std::string saved, std::string_view ours, uint64_t address) {
  const auto have = functions_of(ours);
  for (const auto& [name, function] : functions_of(saved)) {
    const auto same = have.find(name);
    const auto number = call_of(name);
    std::string code = same != have.end() ? jump_to(address + same->second.offset) : "";
    if (code.empty() || code.size() > function.size) code = number ? make_call(*number) : fail();
    if (code.size() <= function.size && code.size() <= saved.size() - function.offset)
      saved.replace(function.offset, code.size(), code);
  }
  return saved;
}

Result<VdsoPlace> place_vdso(const schema::Memory& memory, std::string_view saved, const WorkArea& area) {
  VdsoPlace place;
  const auto& have = area.kernel_mappings();
  std::vector<const Mapping*> wanted;
  const Mapping* old = nullptr;
  for (const auto& mapping : memory.mappings()) {
    if (mapping.kind() != Mapping::VDSO && mapping.kind() != Mapping::VVAR) continue;
    wanted.push_back(&mapping);
    if (mapping.kind() == Mapping::VDSO) old = &mapping;
  }
  if (wanted.empty() || have.empty()) return place;
  const uint64_t base = have.front().start;
  const uint64_t offset = reinterpret_cast<uint64_t>(kernel::own_vdso().data()) - base;
  bool same = wanted.size() == have.size() && (saved.empty() || saved == kernel::own_vdso());
  for (size_t i = 0; same && i < wanted.size(); ++i) {
    same = wanted[i]->end() - wanted[i]->start() == have[i].end - have[i].start &&
           wanted[i]->start() - wanted[0]->start() == have[i].start - base;
  }
  if (same) {
    place.start = wanted.front()->start();
    place.vdso = place.start + offset;
    return place;
  }
  if (saved.empty() || old == nullptr || old->end() - old->start() != saved.size()) {
    return Error{"restart", "vDSO", "this kernel's vDSO has another layout than the one of the checkpoint",
                 "restart it on the kernel version that took it (stasis inspect shows which)",
                 ErrorCode::kUnsupported};
  }
  place.redirected = old->start();
  // As high as possible, where the kernel maps it, too; not where a stack grows to.
  constexpr uint64_t kTop = (uint64_t{1} << 47) - kPageSize, kStack = uint64_t{64} << 20;
  const uint64_t size = have.back().end - base;
  std::vector<std::pair<uint64_t, uint64_t>> taken = {{area.start(), area.end()}, {kTop, kTop}};
  for (const auto& mapping : memory.mappings()) {
    taken.emplace_back(mapping.start() - (mapping.grows_down() ? std::min(kStack, mapping.start()) : 0),
                       mapping.end());
  }
  std::sort(taken.begin(), taken.end());
  uint64_t end = 0;
  for (const auto& [from, to] : taken) {
    if (from >= end && from - end > size + 2 * kPageSize) place.start = from - size - kPageSize;
    end = std::max(end, to);
  }
  if (place.start == 0)
    return Error{"restart", "vDSO", "there is no room for that of this kernel", {}, ErrorCode::kUnsupported};
  place.vdso = place.start + offset;
  return place;
}

Result<void> check_not_in_vdso(const schema::Process& process, const schema::Memory& memory,
                               std::string_view saved, const WorkArea& area) {
  STASIS_TRY(const VdsoPlace place, place_vdso(memory, saved, area));
  if (place.redirected == 0) return {};
  for (const auto& thread : process.threads()) {
    user_regs_struct registers = {};
    std::memcpy(&registers, thread.registers().data(), std::min(thread.registers().size(), sizeof registers));
    if (registers.rip - place.redirected < saved.size()) {
      return Error{"restart",
                   fmt::format("thread {} of task {} ({})", thread.tid(), process.pid(), process.comm()),
                   "it was inside a function of the vDSO, which is another one on this kernel",
                   "restart an earlier or later checkpoint, or this one on its kernel version",
                   ErrorCode::kUnsupported};
    }
  }
  return {};
}

}  // namespace stasis::restore
