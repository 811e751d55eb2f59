#include "machine.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "layout.h"

namespace {

template <class Argument>
int call(int fd, unsigned long request, Argument argument, const char* name) {
  int result = ioctl(fd, request, argument);
  if (result < 0) bad(std::string(name) + ": " + strerror(errno));
  return result;
}
#define CALL(fd, request, argument) call(fd, request, argument, #request)

constexpr uint32_t kPinCount = 24;

}  // namespace

Machine::Machine(const Options& options) : options_(options), size_(uint64_t{options.memory_mib} << 20) {
  kvm_ = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm_ < 0) skip(std::string("/dev/kvm: ") + strerror(errno));

  int fd = -1, sharing = MAP_PRIVATE | MAP_ANONYMOUS;
  if (options.memfd) {
    fd = memfd_create("guest", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, off_t(size_)) < 0) bad("memfd");
    sharing = MAP_SHARED;
  }
  void* memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, sharing, fd, 0);
  if (memory == MAP_FAILED) bad("no memory for the guest");
  // As monitors do: a child of fork() has no use for it.
  if (!options.memfd && madvise(memory, size_, MADV_DONTFORK) < 0) bad("MADV_DONTFORK");
  memory_ = static_cast<uint8_t*>(memory);
  void* rom = mmap(nullptr, layout::kRomSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (rom == MAP_FAILED) bad("no memory for what the guest only reads");
  rom_ = static_cast<uint8_t*>(rom);
  for (uint64_t i = 0; i < layout::kRomSize / 8; ++i)
    reinterpret_cast<uint64_t*>(rom_)[i] = layout::kRomStep * i;
  make_vm();
  load();
  dirty_.resize(size_ / 4096);
}

void Machine::make_vm() {
  vm_ = CALL(kvm_, KVM_CREATE_VM, 0);
  // Where Intel's processors need three pages and one for themselves: below the first 4 GiB, where nothing
  // else is.
  CALL(vm_, KVM_SET_TSS_ADDR, 0xfffbd000UL);
  uint64_t identity_map = 0xfffbc000;
  CALL(vm_, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
  make_chip();

  filter_msrs();
  set_region(0, 0, size_, memory_, options_.dirty_log ? uint32_t{KVM_MEM_LOG_DIRTY_PAGES} : 0);
  set_region(1, layout::kRom, layout::kRomSize, rom_, KVM_MEM_READONLY);
  set_region(2, layout::kWindow, layout::kWindowSize, memory_ + layout::kSharedData + window_ * 4096, 0);
}

void Machine::set_region(uint32_t slot, uint64_t address, uint64_t size, uint8_t* memory, uint32_t flags) {
  kvm_userspace_memory_region region = {};
  region.slot = slot;
  region.flags = flags;
  region.guest_phys_addr = address;
  region.memory_size = size;
  region.userspace_addr = reinterpret_cast<uint64_t>(memory);
  CALL(vm_, KVM_SET_USER_MEMORY_REGION, &region);
}

void Machine::move_window(uint64_t pages) {
  if (layout::kSharedData + pages * 4096 + layout::kWindowSize > size_) bad("a window behind the memory");
  window_ = pages;
  set_region(2, layout::kWindow, 0, nullptr, 0);
  set_region(2, layout::kWindow, layout::kWindowSize, memory_ + layout::kSharedData + pages * 4096, 0);
}

// Two MSRs are denied, and what is denied is the monitor's.
void Machine::filter_msrs() {
  if (extension(KVM_CAP_X86_USER_SPACE_MSR) == 0 || extension(KVM_CAP_X86_MSR_FILTER) == 0) return;
  kvm_enable_cap leave = {};
  leave.cap = KVM_CAP_X86_USER_SPACE_MSR;
  leave.args[0] = KVM_MSR_EXIT_REASON_FILTER;
  CALL(vm_, KVM_ENABLE_CAP, &leave);
  uint8_t denied[1] = {0};
  kvm_msr_filter filter = {};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  filter.ranges[0].flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
  filter.ranges[0].base = layout::kMsrRead;
  filter.ranges[0].nmsrs = 2;
  filter.ranges[0].bitmap = denied;
  CALL(vm_, KVM_X86_SET_MSR_FILTER, &filter);
}

int Machine::extension(int number) const { return CALL(vm_, KVM_CHECK_EXTENSION, number); }

void Machine::make_chip() {
  if (options_.chip == Chip::kNone) return;
  if (options_.chip == Chip::kSplit) {
    if (extension(KVM_CAP_SPLIT_IRQCHIP) == 0) skip("this KVM has no split interrupt controller");
    kvm_enable_cap split = {};
    split.cap = KVM_CAP_SPLIT_IRQCHIP;
    split.args[0] = kPinCount;
    CALL(vm_, KVM_ENABLE_CAP, &split);
  } else {
    CALL(vm_, KVM_CREATE_IRQCHIP, 0);
    kvm_pit_config pit = {};
    CALL(vm_, KVM_CREATE_PIT2, &pit);
  }
  route();
}

// The chips' own routes, as KVM has them to begin with, and one more that is an MSI. Without chips (split)
// every route is an MSI.
void Machine::route() {
  std::vector<kvm_irq_routing_entry> entries;
  auto message = [&](uint32_t gsi) {
    kvm_irq_routing_entry entry = {};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = 0xfee00000;  // to the processor with APIC id 0
    entry.u.msi.data = layout::kInterruptVector;
    entries.push_back(entry);
  };
  auto chip = [&](uint32_t gsi, uint32_t number, uint32_t pin) {
    kvm_irq_routing_entry entry = {};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = number;
    entry.u.irqchip.pin = pin;
    entries.push_back(entry);
  };
  for (uint32_t pin = 0; pin < kPinCount; ++pin) {
    if (options_.chip == Chip::kSplit) {
      message(pin);
      continue;
    }
    if (pin < 16) chip(pin, pin < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, pin % 8);
    // The PIT's interrupt is on pin 2 of the IOAPIC, where PCs have it.
    if (pin != 2) chip(pin, KVM_IRQCHIP_IOAPIC, pin == 0 ? 2 : pin);
  }
  message(layout::kMessagePin);
  // As many as a machine with many devices has; nobody uses them.
  constexpr uint32_t kUnused = 1500;
  for (uint32_t i = 1; i <= kUnused; ++i) message(layout::kMessagePin + i);

  WithArray<kvm_irq_routing, kvm_irq_routing_entry> table(entries.size());
  table->nr = uint32_t(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) table.array()[i] = entries[i];
  CALL(vm_, KVM_SET_GSI_ROUTING, table.head());
}

void Machine::load() {
  std::string path = options_.guests + "/" + options_.guest + ".bin";
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) bad("no guest " + path);
  ssize_t length = read(fd, memory_ + layout::kImage, size_ - layout::kImage);
  if (length <= 0) bad("cannot read " + path);
  close(fd);

  constexpr uint64_t kTable = 7;  // present, writable, for ring 3
  constexpr uint64_t kLargePage = 0x87;
  auto* tables = reinterpret_cast<uint64_t*>(memory_ + layout::kPageTables);
  tables[0] = (layout::kPageTables + 0x1000) | kTable;
  for (uint64_t i = 0; i < 4; ++i) tables[512 + i] = (layout::kPageTables + 0x2000 + i * 0x1000) | kTable;
  for (uint64_t i = 0; i < 4 * 512; ++i) tables[1024 + i] = i << 21 | kLargePage;

  auto* parameters = reinterpret_cast<layout::Parameters*>(memory_ + layout::kParameters);
  parameters->processors = options_.processors;
  parameters->memory_mib = options_.memory_mib;
  parameters->dirty_pages = options_.dirty_pages;
  parameters->chip = options_.chip != Chip::kNone;
  parameters->pic = options_.chip == Chip::kWhole;
  parameters->wait_for_input = options_.wait_for_input;
  parameters->deadline_timer = extension(KVM_CAP_TSC_DEADLINE_TIMER) != 0;
  parameters->dirty_log = options_.dirty_log;
  parameters->user_msrs =
      extension(KVM_CAP_X86_USER_SPACE_MSR) != 0 && extension(KVM_CAP_X86_MSR_FILTER) != 0;
  parameters->jump_seconds = options_.jump_seconds;
  parameters->pin = options_.pin;
}

Machine::Vcpu Machine::make_vcpu(unsigned number) {
  Vcpu vcpu = {number, CALL(vm_, KVM_CREATE_VCPU, static_cast<unsigned long>(number)), nullptr};
  auto length = size_t(CALL(kvm_, KVM_GET_VCPU_MMAP_SIZE, 0));
  void* run = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.fd, 0);
  if (run == MAP_FAILED) bad("the mapping of a vCPU");
  vcpu.run = static_cast<kvm_run*>(run);
  if (options_.sync_registers) {
    if ((extension(KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_REGS) == 0) skip("KVM_CAP_SYNC_REGS is 0");
    vcpu.run->kvm_valid_regs = KVM_SYNC_X86_REGS;
  }

  WithArray<kvm_cpuid2, kvm_cpuid_entry2> cpuid(256);
  cpuid->nent = 256;
  CALL(kvm_, KVM_GET_SUPPORTED_CPUID, cpuid.head());
  for (uint32_t i = 0; i < cpuid->nent; ++i) {
    kvm_cpuid_entry2& entry = cpuid.array()[i];
    if (entry.function == 1) {
      entry.ebx = (entry.ebx & 0x00ffffff) | number << 24;
      if (extension(KVM_CAP_TSC_DEADLINE_TIMER) != 0) entry.ecx |= 1U << 24;
    } else if (entry.function == 0xb || entry.function == 0x1f) {
      entry.edx = number;
    }
  }
  CALL(vcpu.fd, KVM_SET_CPUID2, cpuid.head());

  auto* parameters = reinterpret_cast<layout::Parameters*>(memory_ + layout::kParameters);
  parameters->tsc_khz = uint64_t(CALL(vcpu.fd, KVM_GET_TSC_KHZ, 0));

  if (options_.kick == Kick::kSignalMask) {
    // SIGUSR1, which is blocked elsewhere, interrupts KVM_RUN alone.
    WithArray<kvm_signal_mask, uint64_t> mask(1);
    mask->len = 8;
    CALL(vcpu.fd, KVM_SET_SIGNAL_MASK, mask.head());
  }
  // The others wait for a SIPI, which only an interrupt controller can bring; without one all run from the
  // beginning.
  if (number != 0 && options_.chip != Chip::kNone) return vcpu;
  kvm_sregs special = {};
  CALL(vcpu.fd, KVM_GET_SREGS, &special);
  special.cs.selector = layout::kImage >> 4;
  special.cs.base = layout::kImage;
  CALL(vcpu.fd, KVM_SET_SREGS, &special);
  kvm_regs registers = {};
  registers.rflags = 2;
  CALL(vcpu.fd, KVM_SET_REGS, &registers);
  return vcpu;
}

int Machine::make_kick(uint64_t address, bool port, uint32_t size, const uint32_t* match) {
  int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  kvm_ioeventfd kick = {};
  kick.addr = address;
  kick.len = size;
  kick.fd = event;
  kick.flags = (port ? uint32_t{KVM_IOEVENTFD_FLAG_PIO} : 0U);
  if (match != nullptr) {
    kick.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
    kick.datamatch = *match;
  }
  CALL(vm_, KVM_IOEVENTFD, &kick);
  kicks_.push_back(kick);
  return event;
}

int Machine::make_interrupt() {
  int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  kvm_irqfd interrupt = {};
  interrupt.fd = uint32_t(event);
  interrupt.gsi = options_.pin ? layout::kPin : layout::kMessagePin;
  CALL(vm_, KVM_IRQFD, &interrupt);
  interrupts_.push_back(interrupt);
  return event;
}

void Machine::coalesce(uint64_t address, uint32_t size) {
  kvm_coalesced_mmio_zone zone = {};
  zone.addr = address;
  zone.size = size;
  CALL(vm_, KVM_REGISTER_COALESCED_MMIO, &zone);
  zones_.push_back(zone);
}

kvm_coalesced_mmio_ring* Machine::ring(const Vcpu& vcpu) const {
  int page = extension(KVM_CAP_COALESCED_MMIO);
  return page == 0
             ? nullptr
             : reinterpret_cast<kvm_coalesced_mmio_ring*>(reinterpret_cast<uint8_t*>(vcpu.run) + page * 4096);
}

bool Machine::was_dirtied(uint64_t page) {
  std::lock_guard lock(dirty_mutex_);
  if (page >= dirty_.size()) bad("the guest asks for a page that it has not");
  // What KVM tells it tells once: what was not asked for is kept.
  std::vector<uint64_t> bits(dirty_.size() / 64 + 1);
  kvm_dirty_log log = {};
  log.dirty_bitmap = bits.data();
  CALL(vm_, KVM_GET_DIRTY_LOG, &log);
  for (size_t i = 0; i < dirty_.size(); ++i) {
    if ((bits[i / 64] >> (i % 64) & 1) != 0) dirty_[i] = true;
  }
  bool dirtied = dirty_[page];
  dirty_[page] = false;
  return dirtied;
}
