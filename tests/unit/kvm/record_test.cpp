// What the library in a monitor remembers. It is linked into this test, so the requests here go through it, to
// the real KVM.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "plugins/kvm/kvm_api.h"
#include "plugins/kvm/record_reader.h"
#include "plugins/kvm/rules.h"
#include "stasis/fd.h"

namespace stasis::kvm {
namespace {

class Remembered : public testing::Test {
 protected:
  void SetUp() override {
    kvm_ = Fd(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm_) GTEST_SKIP() << "/dev/kvm cannot be opened";
    machine_ = Fd(ioctl(kvm_.get(), KVM_CREATE_VM, 0));
    ASSERT_TRUE(machine_);
  }

  static RecordReader record() {
    auto address = find_record(HostTid{getpid()});
    EXPECT_TRUE(address);
    auto record = RecordReader::read(HostTid{getpid()}, address.value_or(RemotePtr{}));
    EXPECT_TRUE(record.ok()) << record.error().message();
    return std::move(record).value();
  }

  // Those that were made to this machine.
  std::vector<RecordReader::Remembered> log(uint32_t request) const {
    auto all = record().log();
    EXPECT_TRUE(all.ok());
    std::vector<RecordReader::Remembered> some;
    for (auto& one : *all) {
      if (one.entry.number == machine_.get() && one.entry.request == request) some.push_back(std::move(one));
    }
    return some;
  }

  int slot(uint32_t number, uint64_t size, uint32_t flags = 0) {
    if (memory_ == nullptr)
      memory_ = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    kvm_userspace_memory_region region = {number, flags, uint64_t{number} << 20, size,
                                          reinterpret_cast<uint64_t>(memory_)};
    return ioctl(machine_.get(), KVM_SET_USER_MEMORY_REGION, &region);
  }

  int event(int fd, uint64_t address, uint32_t flags) {
    kvm_ioeventfd event = {};
    event.addr = address;
    event.len = 4;
    event.fd = fd;
    event.flags = flags;
    return ioctl(machine_.get(), KVM_IOEVENTFD, &event);
  }

  Fd kvm_, machine_;
  void* memory_ = nullptr;
};

TEST_F(Remembered, NewestOfASlotCounts) {
  ASSERT_EQ(slot(1, 0x1000), 0);
  ASSERT_EQ(slot(2, 0x1000), 0);
  ASSERT_EQ(slot(2, 0), 0);
  ASSERT_EQ(slot(2, 0x2000), 0);
  auto slots = log(KVM_SET_USER_MEMORY_REGION);
  ASSERT_EQ(slots.size(), 2u);
  kvm_userspace_memory_region last;
  memcpy(&last, slots[1].data.data(), sizeof last);
  EXPECT_EQ(last.slot, 2u);
  EXPECT_EQ(last.memory_size, 0x2000u);
  ASSERT_EQ(slot(1, 0), 0);
  EXPECT_EQ(log(KVM_SET_USER_MEMORY_REGION).size(), 1u);
}

TEST_F(Remembered, WhatHasFailedIsNotRemembered) {
  ASSERT_EQ(slot(1, 0x1234), -1);  // no whole pages
  EXPECT_EQ(errno, EINVAL);
  EXPECT_TRUE(log(KVM_SET_USER_MEMORY_REGION).empty());
}

TEST_F(Remembered, EventsAreNamedByWhatTheyAreOf) {
  Fd first(eventfd(0, 0)), second(eventfd(0, 0));
  ASSERT_EQ(event(first.get(), 0x1000, 0), 0);
  ASSERT_EQ(event(second.get(), 0x2000, 0), 0);
  auto events = log(KVM_IOEVENTFD);
  ASSERT_EQ(events.size(), 2u);
  auto info = read_file(fmt::format("/proc/self/fdinfo/{}", second.get()));
  ASSERT_TRUE(info.ok());
  EXPECT_NE(info->find(fmt::format("eventfd-id: {}\n", events[1].entry.events[0])), std::string::npos) << *info;
  // Taken away by another number of the same.
  Fd again(dup(first.get()));
  ASSERT_EQ(event(again.get(), 0x1000, KVM_IOEVENTFD_FLAG_DEASSIGN), 0);
  events = log(KVM_IOEVENTFD);
  ASSERT_EQ(events.size(), 1u);
}

TEST_F(Remembered, ZonesGoAsTheKernelTakesThemAway) {
  kvm_coalesced_mmio_zone large = {.addr = 0xa0000, .size = 0x20000, .pio = 0};
  kvm_coalesced_mmio_zone other = {.addr = 0xcf8, .size = 4, .pio = 1};
  ASSERT_EQ(ioctl(machine_.get(), KVM_REGISTER_COALESCED_MMIO, &large), 0);
  ASSERT_EQ(ioctl(machine_.get(), KVM_REGISTER_COALESCED_MMIO, &other), 0);
  kvm_coalesced_mmio_zone part = {.addr = 0xa0000, .size = 0x1000, .pio = 0};
  ASSERT_EQ(ioctl(machine_.get(), KVM_UNREGISTER_COALESCED_MMIO, &part), 0);
  auto zones = log(KVM_REGISTER_COALESCED_MMIO);
  ASSERT_EQ(zones.size(), 1u);
  EXPECT_EQ(memcmp(zones[0].data.data(), &other, sizeof other), 0);
}

TEST_F(Remembered, FilterWithItsBitmaps) {
  kvm_enable_cap exits = {};
  exits.cap = KVM_CAP_X86_USER_SPACE_MSR;
  exits.args[0] = KVM_MSR_EXIT_REASON_FILTER;
  if (ioctl(machine_.get(), KVM_ENABLE_CAP, &exits) < 0) GTEST_SKIP() << "no filters of MSRs here";
  uint8_t bits[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  kvm_msr_filter filter = {};
  filter.ranges[0].flags = KVM_MSR_FILTER_READ;
  filter.ranges[0].nmsrs = 40;
  filter.ranges[0].base = 0x100;
  filter.ranges[0].bitmap = bits;
  ASSERT_EQ(ioctl(machine_.get(), KVM_X86_SET_MSR_FILTER, &filter), 0);
  auto filters = log(KVM_X86_SET_MSR_FILTER);
  ASSERT_EQ(filters.size(), 1u);
  ASSERT_EQ(filters[0].data.size(), sizeof filter + sizeof bits);
  EXPECT_EQ(memcmp(filters[0].data.data() + sizeof filter, bits, sizeof bits), 0);
}

TEST_F(Remembered, RoutesAreTheWholeTable) {
  ASSERT_EQ(ioctl(machine_.get(), KVM_CREATE_IRQCHIP, 0), 0);
  for (uint32_t count : {3, 2}) {
    std::string table(sizeof(kvm_irq_routing) + count * sizeof(kvm_irq_routing_entry), '\0');
    auto* routing = reinterpret_cast<kvm_irq_routing*>(table.data());
    routing->nr = count;
    for (uint32_t i = 0; i < count; ++i) {
      routing->entries[i].gsi = i;
      routing->entries[i].type = KVM_IRQ_ROUTING_MSI;
    }
    ASSERT_EQ(ioctl(machine_.get(), KVM_SET_GSI_ROUTING, routing), 0);
    auto routes = log(KVM_SET_GSI_ROUTING);
    ASSERT_EQ(routes.size(), 1u);
    EXPECT_EQ(routes[0].data, table);
  }
}

TEST_F(Remembered, NumbersThatAreGivenAgain) {
  {
    Fd vcpu(ioctl(machine_.get(), KVM_CREATE_VCPU, 0));
    ASSERT_TRUE(vcpu);
    ASSERT_EQ(log(KVM_CREATE_VCPU).size(), 1u);
    EXPECT_EQ(log(KVM_CREATE_VCPU)[0].entry.made, vcpu.get());
  }
  Fd other(ioctl(machine_.get(), KVM_CREATE_VCPU, 1));  // has the number of the first
  auto made = log(KVM_CREATE_VCPU);
  ASSERT_EQ(made.size(), 1u);
  EXPECT_EQ(made[0].data[0], 1);
}

TEST_F(Remembered, AfterARestartAllOfAWatchedSlotCountsAsWritten) {
  ASSERT_EQ(slot(1, 0x9000, KVM_MEM_LOG_DIRTY_PAGES), 0);
  uint64_t bits[2] = {};
  kvm_dirty_log wanted = {};
  wanted.slot = 1;
  wanted.dirty_bitmap = bits;
  ASSERT_EQ(ioctl(machine_.get(), KVM_GET_DIRTY_LOG, &wanted), 0);
  EXPECT_EQ(bits[0], 0u);
  auto slots = log(KVM_SET_USER_MEMORY_REGION);
  ASSERT_EQ(slots.size(), 1u);
  Entry entry = slots[0].entry;
  entry.flags |= kReportAll;
  ASSERT_TRUE(poke(HostTid{getpid()}, record().address() + offsetof(Record, log) + slots[0].offset,
                   bytes_of(entry)).ok());
  ASSERT_EQ(ioctl(machine_.get(), KVM_GET_DIRTY_LOG, &wanted), 0);
  EXPECT_EQ(bits[0], 0x1ffu);
  ASSERT_EQ(ioctl(machine_.get(), KVM_GET_DIRTY_LOG, &wanted), 0);
  EXPECT_EQ(bits[0], 0u);
}

TEST_F(Remembered, WhatIsUnknownIsNamed) {
  EXPECT_EQ(record().head().unknown, 0u);
  constexpr uint32_t kUnknown = _IO(KVMIO, 0xfe);
  EXPECT_LT(ioctl(machine_.get(), kUnknown, 0), 0);  // the kernel does not know it either: no effect
  EXPECT_EQ(record().head().unknown, 0u);
  EXPECT_EQ(find_rule(kUnknown), nullptr);
  for (const Rule& rule : kRules) {
    int times = 0;
    for (const Rule& other : kRules) times += other.request == rule.request ? 1 : 0;
    EXPECT_EQ(times, 1) << std::hex << rule.request;
  }
}

TEST_F(Remembered, ChildrenHaveNothingOfIt) {
  const pid_t child = fork();
  if (child == 0) {
    // It has no record; a request of its own begins one.
    const bool none = !find_record(HostTid{getpid()});
    const int own = ioctl(kvm_.get(), KVM_CREATE_VM, 0);
    const bool has = find_record(HostTid{getpid()}).has_value();
    _exit(none && own >= 0 && has ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(record().head().owner, getpid());
}

// A vCPU that is to wait does so for a moment, and then runs although nobody lets it.
TEST_F(Remembered, AVcpuWaitsWhileACheckpointWantsIt) {
  ASSERT_EQ(slot(0, 0x1000), 0);
  // in al, 0x10; jmp back
  memcpy(memory_, "\xe4\x10\xeb\xfc", 4);
  Fd vcpu(ioctl(machine_.get(), KVM_CREATE_VCPU, 0));
  const int size = ioctl(kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  auto* run = static_cast<kvm_run*>(
      mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.get(), 0));
  ASSERT_NE(run, MAP_FAILED);
  kvm_sregs special;
  ASSERT_EQ(ioctl(vcpu.get(), KVM_GET_SREGS, &special), 0);
  special.cs.base = 0;
  special.cs.selector = 0;
  ASSERT_EQ(ioctl(vcpu.get(), KVM_SET_SREGS, &special), 0);
  kvm_regs registers = {};
  registers.rflags = 2;
  ASSERT_EQ(ioctl(vcpu.get(), KVM_SET_REGS, &registers), 0);

  ASSERT_EQ(ioctl(vcpu.get(), KVM_RUN, 0), 0);
  ASSERT_EQ(run->exit_reason, uint32_t{KVM_EXIT_IO});
  auto progress = [&] { return record().vcpus().back().progress; };
  EXPECT_EQ(progress(), uint32_t{kAccessing});
  const uint32_t hold = 7;
  ASSERT_TRUE(poke(HostTid{getpid()}, record().address() + offsetof(Record, hold), bytes_of(hold)).ok());
  std::thread other([&] {
    reinterpret_cast<uint8_t*>(run)[run->io.data_offset] = 0x5a;
    EXPECT_EQ(ioctl(vcpu.get(), KVM_RUN, 0), 0);  // the next access, when it has waited long enough
  });
  for (int i = 0; i < 1000 && progress() != kComplete; ++i) usleep(100);
  EXPECT_EQ(progress(), uint32_t{kComplete});
  ASSERT_EQ(ioctl(vcpu.get(), KVM_GET_REGS, &registers), 0);
  EXPECT_EQ(registers.rax & 0xff, 0x5au);
  EXPECT_EQ(registers.rip, 2u);
  other.join();
  EXPECT_EQ(progress(), uint32_t{kAccessing});
  EXPECT_EQ(run->immediate_exit, 0);
}

}  // namespace
}  // namespace stasis::kvm
