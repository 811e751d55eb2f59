// Loaded into a monitor: wraps ioctl(), and sleeps until somebody makes a virtual machine. Then it remembers
// what the kernel does not tell (record.h), and lets vCPUs stand where a checkpoint can be taken.
//
// It may be in any program, so it needs libc and nothing else, allocates nothing, and costs a comparison for
// a request that is not KVM's.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm_api.h"
#include "record.h"
#include "rules.h"

namespace stasis::kvm {
namespace {

Record* record;   // nullptr: there is no machine yet, or this is the child of a process that has one
size_t run_size;  // of what a vCPU shares with its monitor
int owner;        // the process that `record` is of
__thread int own_tid;

template <typename T>
T load(const T& value) {
  return __atomic_load_n(&value, __ATOMIC_ACQUIRE);
}
template <typename T>
void store(T& to, T value) {
  __atomic_store_n(&to, value, __ATOMIC_RELEASE);
}

int request_of_kernel(int number, unsigned long request, void* argument) {
  return static_cast<int>(syscall(SYS_ioctl, number, request, argument));
}

// The child of a fork() can do nothing with the machine of its parent, and may make one of its own.
void forget_parent() {
  record = nullptr;
  own_tid = 0;
}

void begin_record() {
  const int file = static_cast<int>(syscall(SYS_memfd_create, kMemoryName, MFD_CLOEXEC));
  if (file < 0) return;
  void* memory = MAP_FAILED;
  if (ftruncate(file, sizeof(Record)) == 0)
    memory = mmap(nullptr, sizeof(Record), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return;  // a checkpoint will be refused, since nothing is known
  madvise(memory, sizeof(Record), MADV_DONTFORK);
  auto* fresh = static_cast<Record*>(memory);
  fresh->version = kVersion;
  fresh->owner = owner = getpid();
  store(fresh->magic, kMagic);
  static bool told;
  if (!told) pthread_atfork(nullptr, nullptr, forget_parent);
  told = true;
  record = fresh;
}

// No signal handler can come in between, which could make a request, too.
class Lock {
 public:
  Lock() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
    while (__atomic_exchange_n(&record->lock, 1, __ATOMIC_ACQUIRE) != 0) sched_yield();
  }
  ~Lock() {
    const int error = errno;
    store<uint32_t>(record->lock, 0);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    errno = error;
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  sigset_t before_;
};

// --- The log

Entry* entry_at(uint32_t offset) { return reinterpret_cast<Entry*>(record->log + offset); }
unsigned char* carried_by(Entry* entry) { return reinterpret_cast<unsigned char*>(entry + 1); }

template <typename Condition>
void remove_entries(Condition&& superseded) {
  for (uint32_t offset = 0; offset < record->used;) {
    Entry* entry = entry_at(offset);
    const uint32_t size = entry->size;
    if (superseded(entry)) {
      memmove(entry, record->log + offset + size, record->used - offset - size);
      record->used -= size;
    } else {
      offset += size;
    }
  }
}

// Returns where `carried` bytes go; nullptr: there is no room for it, or no need of it.
Entry* append(int number, uint32_t request, uint32_t carried) {
  const uint32_t size = static_cast<uint32_t>((sizeof(Entry) + carried + 7) / 8 * 8);
  if (carried > kLogSize || size > kLogSize - record->used) {
    record->lost = 1;
    return nullptr;
  }
  Entry* entry = entry_at(record->used);
  *entry = {size, request, number, -1, {kNoEvent, kNoEvent}, carried, 0};
  record->used += size;
  return entry;
}

Entry* append_data(int number, uint32_t request, const void* data, uint32_t size) {
  Entry* entry = append(number, request, size);
  if (entry != nullptr && size > 0) memcpy(carried_by(entry), data, size);
  return entry;
}

template <typename T>
const T* as(Entry* entry) {
  return reinterpret_cast<const T*>(carried_by(entry));
}

// Removes an earlier one with the same key, and the descriptor's own.
void supersede(int number, uint32_t request, const void* key, uint32_t size) {
  remove_entries([&](Entry* entry) {
    return entry->number == number && entry->request == request && entry->carried >= size &&
           (size == 0 || memcmp(carried_by(entry), key, size) == 0);
  });
}

// A number that the kernel has just given: whatever had it before is closed.
void note_new(int number) {
  remove_entries([&](Entry* entry) { return entry->number == number || entry->made == number; });
  if (number >= 0 && static_cast<uint32_t>(number) < kMostNumbers) record->by_number[number] = 0;
}

// What an event descriptor is of.
int32_t identify(int number) {
  char path[64] = "/proc/self/fdinfo/";
  char digits[16];
  size_t length = 0;
  for (int rest = number; rest > 0 || length == 0; rest /= 10)
    digits[length++] = static_cast<char>('0' + rest % 10);
  char* end = path + strlen(path);
  while (length > 0) *end++ = digits[--length];
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  char text[1024];
  const ssize_t size = file < 0 ? -1 : read(file, text, sizeof text - 1);
  if (file >= 0) close(file);
  if (size > 0) {
    static const char kKey[] = "eventfd-id:";
    text[size] = 0;
    if (const char* found = strstr(text, kKey)) {
      int32_t id = 0;
      for (const char* at = found + sizeof kKey - 1; *at != '\n' && *at != 0; ++at) {
        if (*at >= '0' && *at <= '9') id = id * 10 + (*at - '0');
      }
      return id;
    }
  }
  return of_number(number);
}

// --- Effects of requests that have succeeded

void note_created(int number, uint32_t request, uint64_t value, int made) {
  note_new(made);
  // The number of /dev/kvm may be closed, and given to another.
  const int of = request == KVM_CREATE_VM ? -1 : number;
  Entry* entry = append_data(of, request, &value, sizeof value);
  if (entry != nullptr) entry->made = made;
  if (request != KVM_CREATE_VCPU) return;
  uint32_t index = 0;
  while (index < record->vcpus && record->vcpu[index].number != made) ++index;
  if (made < 0 || static_cast<uint32_t>(made) >= kMostNumbers || index == kMostVcpus) {
    record->lost = 1;
    return;
  }
  record->vcpu[index] = {made, 0, kComplete, 0, 0};
  if (index == record->vcpus) ++record->vcpus;
  record->by_number[made] = static_cast<uint16_t>(index + 1);
}

void note_slot(int number, uint32_t request, const void* data, uint32_t size) {
  struct Slot {
    uint32_t slot, flags;
    uint64_t guest, size;
  };
  const auto* slot = static_cast<const Slot*>(data);
  remove_entries([&](Entry* entry) {
    const Rule* rule = find_rule(entry->request);
    return entry->number == number && rule->effect == Effect::kSlot && as<Slot>(entry)->slot == slot->slot;
  });
  if (slot->size != 0) append_data(number, request, data, size);
}

// As the kernel does: away with all zones that have the whole of this one in them.
void note_no_zone(int number, const kvm_coalesced_mmio_zone& gone) {
  remove_entries([&](Entry* entry) {
    if (entry->number != number || entry->request != KVM_REGISTER_COALESCED_MMIO) return false;
    const auto* zone = as<kvm_coalesced_mmio_zone>(entry);
    return zone->pio == gone.pio && zone->addr <= gone.addr &&
           gone.addr + gone.size <= zone->addr + zone->size;
  });
}

void note_event(int number, const kvm_ioeventfd& event) {
  constexpr uint32_t kGone = KVM_IOEVENTFD_FLAG_DEASSIGN;
  const int32_t id = identify(event.fd);
  remove_entries([&](Entry* entry) {
    if (entry->number != number || entry->request != KVM_IOEVENTFD || entry->events[0] != id) return false;
    const auto* other = as<kvm_ioeventfd>(entry);
    return other->addr == event.addr && other->len == event.len && other->flags == (event.flags & ~kGone) &&
           ((event.flags & KVM_IOEVENTFD_FLAG_DATAMATCH) == 0 || other->datamatch == event.datamatch);
  });
  if ((event.flags & kGone) != 0) return;
  if (Entry* entry = append_data(number, KVM_IOEVENTFD, &event, sizeof event)) entry->events[0] = id;
}

void note_interrupt(int number, const kvm_irqfd& interrupt) {
  const int32_t id = identify(static_cast<int>(interrupt.fd));
  remove_entries([&](Entry* entry) {
    return entry->number == number && entry->request == KVM_IRQFD && entry->events[0] == id &&
           as<kvm_irqfd>(entry)->gsi == interrupt.gsi;
  });
  if ((interrupt.flags & KVM_IRQFD_FLAG_DEASSIGN) != 0) return;
  Entry* entry = append_data(number, KVM_IRQFD, &interrupt, sizeof interrupt);
  if (entry == nullptr) return;
  entry->events[0] = id;
  if ((interrupt.flags & KVM_IRQFD_FLAG_RESAMPLE) != 0)
    entry->events[1] = identify(static_cast<int>(interrupt.resamplefd));
}

// With the bitmaps to which it points.
void note_filter(int number, const kvm_msr_filter& filter) {
  auto bytes = [](const kvm_msr_filter_range& range) { return (range.nmsrs + 63) / 64 * 8; };
  uint32_t size = sizeof filter;
  for (const auto& range : filter.ranges) size += bytes(range);
  supersede(number, KVM_X86_SET_MSR_FILTER, nullptr, 0);
  Entry* entry = append(number, KVM_X86_SET_MSR_FILTER, size);
  if (entry == nullptr) return;
  unsigned char* at = carried_by(entry);
  memcpy(at, &filter, sizeof filter);
  at += sizeof filter;
  for (const auto& range : filter.ranges) {
    if (bytes(range) > 0) memcpy(at, range.bitmap, bytes(range));
    at += bytes(range);
  }
}

void note(int number, const Rule& rule, void* argument, int result) {
  const uint32_t request = rule.request;
  const uint32_t size = rule.size != 0 ? rule.size : _IOC_SIZE(request);
  const auto value = reinterpret_cast<uint64_t>(argument);
  switch (rule.effect) {
    case Effect::kValue:
      supersede(number, request, nullptr, 0);
      append_data(number, request, &value, sizeof value);
      break;
    case Effect::kData:
      supersede(number, request, argument, rule.key);
      append_data(number, request, argument, size);
      break;
    case Effect::kCreate:
      note_created(number, request, value, result);
      break;
    case Effect::kDevice: {
      const auto* device = static_cast<const kvm_create_device*>(argument);
      if ((device->flags & KVM_CREATE_DEVICE_TEST) == 0)
        note_created(number, request, device->type, static_cast<int>(device->fd));
      break;
    }
    case Effect::kSlot:
      note_slot(number, request, argument, size);
      break;
    case Effect::kZone:
      supersede(number, request, argument, size);
      append_data(number, request, argument, size);
      break;
    case Effect::kNoZone:
      note_no_zone(number, *static_cast<const kvm_coalesced_mmio_zone*>(argument));
      break;
    case Effect::kEvent:
      note_event(number, *static_cast<const kvm_ioeventfd*>(argument));
      break;
    case Effect::kInterrupt:
      note_interrupt(number, *static_cast<const kvm_irqfd*>(argument));
      break;
    case Effect::kArray: {
      const auto* words = static_cast<const uint32_t*>(argument);
      const uint32_t elements = words[request == KVM_SET_PMU_EVENT_FILTER ? 1 : 0];
      supersede(number, request, nullptr, 0);
      append_data(number, request, argument, size + elements * rule.key);
      break;
    }
    case Effect::kMask:
      supersede(number, request, nullptr, 0);
      if (argument != nullptr)
        append_data(number, request, argument, 4 + *static_cast<const uint32_t*>(argument));
      break;
    case Effect::kFilter:
      note_filter(number, *static_cast<const kvm_msr_filter*>(argument));
      break;
    default:
      break;
  }
}

// After a restart the kernel knows nothing of what was written before: then all of the slot counts as
// written.
void complete_dirty_log(int number, const kvm_dirty_log& log) {
  for (uint32_t offset = 0; offset < record->used; offset += entry_at(offset)->size) {
    Entry* entry = entry_at(offset);
    if (entry->number != number || find_rule(entry->request)->effect != Effect::kSlot) continue;
    const auto* slot = as<kvm_userspace_memory_region>(entry);
    if (slot->slot != log.slot || (entry->flags & kReportAll) == 0) continue;
    entry->flags &= ~kReportAll;
    const uint64_t pages = slot->memory_size / 4096;
    auto* bits = static_cast<unsigned char*>(log.dirty_bitmap);
    memset(bits, 0xff, pages / 8);
    if (pages % 8 != 0) bits[pages / 8] = static_cast<unsigned char>((1 << pages % 8) - 1);
  }
}

// --- Running a vCPU

// What a vCPU shares with its monitor, for a moment: a mapping that stays would keep a machine alive that its
// monitor has closed.
class Shared {
 public:
  explicit Shared(int number) {
    void* memory = mmap(nullptr, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, number, 0);
    if (memory != MAP_FAILED) run_ = static_cast<kvm_run*>(memory);
  }
  ~Shared() {
    const int error = errno;
    if (run_ != nullptr) munmap(run_, run_size);
    errno = error;
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  kvm_run* operator->() const { return run_; }
  explicit operator bool() const { return run_ != nullptr; }

 private:
  kvm_run* run_ = nullptr;
};

bool monitor_wants_it_out(int number) {
  Shared shared(number);
  return shared && load(shared->immediate_exit) != 0;
}

// The order of the stores is what the engine relies on: while kInside is set, the system call tells.
int run_once(Vcpu& vcpu, int number, void* argument) {
  store<uint32_t>(vcpu.progress, vcpu.progress | kInside);
  const int result = request_of_kernel(number, KVM_RUN, argument);
  // It has run, and what was given to it is in its registers, unless it was to come back at once.
  if (vcpu.interrupted != 0 && (result == 0 || !monitor_wants_it_out(number)))
    store<uint32_t>(vcpu.interrupted, 0);
  store<uint32_t>(vcpu.progress, result == 0 ? kAccessing : kComplete);
  return result;
}

// Lets it complete what it is in the middle of, and no more. -1 with EINTR: it has.
int complete(Vcpu& vcpu, int number, void* argument) {
  Shared shared(number);
  if (!shared) return run_once(vcpu, number, argument);
  constexpr uint8_t kOurs = 0x80;  // any value but 0 will do; the monitor writes 1
  uint8_t none = 0;
  auto* flag = &shared->immediate_exit;
  const bool ours =
      __atomic_compare_exchange_n(flag, &none, kOurs, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  const int result = run_once(vcpu, number, argument);
  uint8_t expected = kOurs;
  if (result == 0 && !is_access(shared->exit_reason)) store<uint32_t>(vcpu.progress, kComplete);
  if (!ours) return result;
  // If the monitor wants it out as well, it has said so meanwhile.
  const int error = errno;
  __atomic_compare_exchange_n(flag, &expected, uint8_t{0}, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  errno = error;
  return result;
}

// Until the checkpoint is taken. False: a signal came, by which the monitor wants the vCPU out. Who wanted to
// take it may have been killed.
bool wait(Vcpu& vcpu, uint32_t hold) {
  constexpr int kMoments = 100;
  for (int i = 0; i < kMoments; ++i) {
    if (load(record->hold) != hold) return true;
    timespec moment = {0, 500'000};
    if (syscall(SYS_ppoll, nullptr, 0, &moment, nullptr, 0) < 0 && errno == EINTR) return false;
  }
  vcpu.waived = hold;
  return true;
}

Vcpu* find_vcpu(int number) {
  const uint32_t index =
      number >= 0 && static_cast<uint32_t>(number) < kMostNumbers ? record->by_number[number] : 0;
  return index == 0 ? nullptr : &record->vcpu[index - 1];
}

int inject(int number, void* argument) {
  Vcpu* vcpu = find_vcpu(number);
  if (vcpu == nullptr) return request_of_kernel(number, KVM_INTERRUPT, argument);
  const uint32_t before = vcpu->interrupted;
  store<uint32_t>(vcpu->interrupted, 1);
  const int result = request_of_kernel(number, KVM_INTERRUPT, argument);
  if (result < 0) store<uint32_t>(vcpu->interrupted, before);
  return result;
}

int run(int number, void* argument) {
  Vcpu* found = find_vcpu(number);
  if (found == nullptr) return request_of_kernel(number, KVM_RUN, argument);
  Vcpu& vcpu = *found;
  if (own_tid == 0) own_tid = static_cast<int>(syscall(SYS_gettid));
  vcpu.tid = own_tid;
  if (vcpu.interrupted != 0) return run_once(vcpu, number, argument);
  for (uint32_t hold = load(record->hold); hold != 0 && hold != vcpu.waived; hold = load(record->hold)) {
    const int result = complete(vcpu, number, argument);
    if (result == 0 || errno != EINTR) return result;
    if (monitor_wants_it_out(number) || !wait(vcpu, hold)) {
      errno = EINTR;
      return -1;
    }
  }
  return run_once(vcpu, number, argument);
}

int handle(int number, uint32_t request, void* argument) {
  if (request == KVM_RUN && record != nullptr) return run(number, argument);
  const Rule* rule = find_rule(request);
  // A child that was not made by fork(): it does not even have the memory.
  if (request == KVM_CREATE_VM && record != nullptr && owner != getpid()) forget_parent();
  if (record == nullptr) {
    if (request != KVM_CREATE_VM) return request_of_kernel(number, request, argument);
    begin_record();
    if (record == nullptr) return request_of_kernel(number, request, argument);
    const int size = request_of_kernel(number, KVM_GET_VCPU_MMAP_SIZE, nullptr);
    run_size = size > 0 ? static_cast<size_t>(size) : 0;
  }
  if (rule != nullptr && rule->effect == Effect::kInject) return inject(number, argument);
  if (rule != nullptr && rule->effect == Effect::kNone) return request_of_kernel(number, request, argument);
  Lock lock;
  const int result = request_of_kernel(number, request, argument);
  if (result < 0) return result;
  const int error = errno;
  if (rule == nullptr) {
    record->unknown = request;
  } else if (rule->effect == Effect::kDirtyLog) {
    complete_dirty_log(number, *static_cast<const kvm_dirty_log*>(argument));
  } else {
    note(number, *rule, argument, result);
  }
  errno = error;
  return result;
}

}  // namespace
}  // namespace stasis::kvm

// The name is libc's.
extern "C" __attribute__((visibility("default"))) int ioctl(int number, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  // The numbers between 0x20 and 0x3f belong to others.
  const bool is_kvm = _IOC_TYPE(request) == KVMIO && (_IOC_NR(request) < 0x20 || _IOC_NR(request) >= 0x40);
  if (!is_kvm) return stasis::kvm::request_of_kernel(number, request, argument);
  return stasis::kvm::handle(number, static_cast<uint32_t>(request), argument);
}
