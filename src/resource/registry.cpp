#include "resource/registry.h"

#include <algorithm>

#include "resource/epoll.h"
#include "resource/eventfd.h"
#include "resource/fanotify.h"
#include "resource/file/device.h"
#include "resource/file/directory.h"
#include "resource/file/fifo.h"
#include "resource/file/namespace.h"
#include "resource/file/path_only.h"
#include "resource/file/proc.h"
#include "resource/file/regular.h"
#include "resource/file/unlinked.h"
#include "resource/inotify.h"
#include "resource/memfd.h"
#include "resource/mqueue.h"
#include "resource/pidfd.h"
#include "resource/pipe.h"
#include "resource/refused.h"
#include "resource/signalfd.h"
#include "resource/socket/netlink.h"
#include "resource/socket/raw.h"
#include "resource/socket/tcp.h"
#include "resource/socket/udp.h"
#include "resource/socket/unix_socket.h"
#include "resource/task_kinds.h"
#include "resource/terminal/pty.h"
#include "resource/terminal/session_stdio.h"
#include "resource/terminal/session_terminal.h"
#include "resource/timerfd.h"
#include "resource/tun.h"

namespace stasis::resource {
namespace {

template <typename Kind>
const Kind kInstance{};

// One line for each kind that is saved. The order matters where one file fits two kinds: the first of them
// takes it.
const DescriptorKind* const kSaved[] = {
    &kInstance<MessageQueueKind>,
    &kInstance<ProcKind>,  // before files and directories, which it contains
    &kInstance<MemfdKind>,
    &kInstance<UnlinkedFileKind>,
    &kInstance<PathOnlyKind>,  // before all others that look at the type of the file
    &kInstance<SessionTerminalKind>,
    &kInstance<SessionStdioKind>,
    &kInstance<EventfdKind>,
    &kInstance<SignalfdKind>,
    &kInstance<TimerfdKind>,
    &kInstance<EpollKind>,
    &kInstance<EpollInFlightKind>,
    &kInstance<InotifyKind>,
    &kInstance<FanotifyKind>,
    &kInstance<PidfdKind>,
    &kInstance<PipeKind>,
    &kInstance<FifoKind>,
    &kInstance<UnixSocketKind>,
    &kInstance<TcpKind>,
    &kInstance<UdpKind>,
    &kInstance<NetlinkKind>,
    &kInstance<RawSocketKind>,
    &kInstance<PtyKind>,
    &kInstance<DeviceKind>,
    &kInstance<TunKind>,
    &kInstance<NamespaceKind>,
    &kInstance<DirectoryKind>,
    &kInstance<RegularFileKind>,
};

std::vector<const DescriptorKind*>& kinds_of_plugins() {
  static std::vector<const DescriptorKind*> kinds;
  return kinds;
}

// What is refused stands around what is saved: known ones before, everything else after.
const std::vector<const DescriptorKind*>& all_descriptor_kinds() {
  static const std::vector<RefusedKind> refused(refused_rows().begin(), refused_rows().end());
  static const RefusedKind unknown(unknown_row());
  static const std::vector<const DescriptorKind*> kinds = [] {
    std::vector<const DescriptorKind*> list = kinds_of_plugins();
    for (const RefusedKind& kind : refused) list.push_back(&kind);
    list.insert(list.end(), std::begin(kSaved), std::end(kSaved));
    list.push_back(&unknown);
    return list;
  }();
  return kinds;
}

}  // namespace

std::span<const DescriptorKind* const> descriptor_kinds() { return all_descriptor_kinds(); }

const DescriptorKind* find_descriptor_kind(std::string_view name) {
  for (const DescriptorKind* kind : all_descriptor_kinds()) {
    if (kind->info().name == name) return kind;
  }
  return nullptr;
}

const DescriptorKind& recognise(const OpenFile& file, const Observation& tree) {
  for (const DescriptorKind* kind : all_descriptor_kinds()) {
    if (kind->recognises(file, tree)) return *kind;
  }
  return *all_descriptor_kinds().back();
}

void add_kinds(std::span<const DescriptorKind* const> kinds) {
  auto& all = kinds_of_plugins();
  all.insert(all.end(), kinds.begin(), kinds.end());
}

bool is_mapped_by_kind(std::string_view name) {
  const auto& kinds = kinds_of_plugins();
  return std::any_of(kinds.begin(), kinds.end(), [&](const auto* kind) { return kind->maps(name); });
}

std::vector<KindInfo> all_kinds() {
  std::vector<KindInfo> rows(task_kinds().begin(), task_kinds().end());
  for (const DescriptorKind* kind : all_descriptor_kinds()) rows.push_back(kind->info());
  return rows;
}

}  // namespace stasis::resource
