#include "checkpoint/base_image.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "kernel/proc.h"

namespace stasis::checkpoint {

namespace {

constexpr std::string_view kSuffix = ".stasis-pages";

// A file of the base's own gets its number, so that no other of the new checkpoint has the same name.
std::string shared_name(std::string name, bool is_layer, uint32_t base) {
  if (is_layer) return name;
  if (name.ends_with(kSuffix)) name.resize(name.size() - kSuffix.size());
  return fmt::format("{}.{}{}", name, base, kSuffix);
}

void add_run(google::protobuf::RepeatedPtrField<schema::PageRun>& runs, const Extent& extent,
             uint32_t layer) {
  auto* run = runs.Add();
  run->set_address(extent.address);
  run->set_size(extent.size);
  run->set_offset(extent.offset);
  run->set_layer(layer);
}

}  // namespace

FileOfPages identify(int file) {
  void* page = ::mmap(nullptr, kPageSize, PROT_READ, MAP_PRIVATE, file, 0);
  if (page == MAP_FAILED) return {};
  const auto address = reinterpret_cast<uint64_t>(page);
  auto seen = kernel::mappings_between(HostTid{::getpid()}, address, address + kPageSize);
  ::munmap(page, kPageSize);
  if (!seen.ok() || seen->size() != 1) return {};
  return {seen->front().device, seen->front().inode};
}

bool HeldPages::read(uint64_t address, std::span<char> into) const {
  const auto& runs = memory_->runs();
  auto run = std::upper_bound(runs.begin(), runs.end(), address, [](uint64_t value, const auto& one) {
    return value < one.address() + one.size();
  });
  while (!into.empty()) {
    if (run == runs.end() || run->address() > address) return false;
    const uint64_t inside = address - run->address();
    const uint64_t size = std::min<uint64_t>(run->size() - inside, into.size());
    if (!pread_all(files_[run->layer()].get(), into.first(size), static_cast<off_t>(run->offset() + inside))
             .ok())
      return false;
    into = into.subspan(size);
    address += size;
    ++run;
  }
  return true;
}

std::optional<BaseImage> BaseImage::open(const std::string& directory) {
  if (directory.empty()) return {};
  auto image = image::Image::open(directory);
  if (!image.ok()) return {};
  return BaseImage(std::move(image).value());
}

const schema::Memory* BaseImage::find_memory(NsTid pid) const {
  const auto& manifest = image_.manifest();
  for (const auto& process : manifest.processes()) {
    if (process.pid() == pid.value && process.state() != schema::Process::ZOMBIE)
      return &manifest.memories(static_cast<int>(process.memory()));
  }
  return nullptr;
}

std::optional<HeldPages> BaseImage::hold(NsTid pid) const {
  HeldPages held;
  held.memory_ = find_memory(pid);
  if (held.memory_ == nullptr || held.memory_->runs().empty()) return {};
  auto open = [&](const std::string& name) {
    auto file = image_.open_file(name);
    if (!file.ok()) return false;
    held.files_.push_back(std::move(file).value());
    return true;
  };
  if (!open(held.memory_->page_file())) return {};
  for (const auto& layer : held.memory_->layers()) {
    if (!open(layer)) return {};
  }
  for (const auto& run : held.memory_->runs())
    held.pages_.push_back({run.address(), run.address() + run.size()});
  held.pages_ = normalized(std::move(held.pages_));
  return held;
}

BaseFile BaseImage::share(const std::string& name) {
  BaseFile file;
  const auto* entry = image_.find_file(name);
  if (entry == nullptr) return file;
  file.stored = entry->stored();
  file.name = shared_name(name, entry->origin() != 0, id());
  auto [known, is_new] = shared_.try_emplace(file.name);
  Shared& shared = known->second;
  if (is_new) {
    const uint32_t origin = entry->origin() != 0 ? entry->origin() : id();
    if (auto opened = writer_->share_file(file.name, image_, name, origin)) {
      shared.fd = std::move(*opened);
      shared.identity = identify(shared.fd.get());
    }
  }
  // Without a descriptor its pages are written again.
  if (auto opened = duplicate(shared.fd.get()); shared.fd && opened.ok()) {
    file.fd = std::move(opened).value();
    file.identity = shared.identity;
  }
  return file;
}

void BaseImage::need(const google::protobuf::RepeatedPtrField<std::string>& layers) {
  for (const auto& name : layers) {
    if (auto found = shared_.find(name); found != shared_.end()) found->second.needed = true;
  }
}

bool BaseImage::drop_unneeded() {
  bool any = false;
  for (const auto& [name, file] : shared_) {
    any = any || file.needed;
    if (file.fd && !file.needed) writer_->drop_shared_file(name);
  }
  shared_.clear();
  return any;
}

template <typename Memory>
BasePages BaseImage::pages_of(const Memory& memory) {
  BasePages pages;
  if (memory.runs().empty()) return pages;
  pages.runs.assign(memory.runs().begin(), memory.runs().end());
  pages.files.push_back(share(memory.page_file()));
  for (const auto& layer : memory.layers()) pages.files.push_back(share(layer));
  return pages;
}

BasePages BaseImage::of_process(NsTid pid) {
  const auto* memory = find_memory(pid);
  return memory != nullptr ? pages_of(*memory) : BasePages();
}

// They have nothing lasting by which one could know them, but are found in the same order. What is compared
// with the wrong one is only written once more.
BasePages BaseImage::of_shared_memory(int index) {
  const auto& objects = image_.manifest().shared_memories();
  return index < objects.size() ? pages_of(objects[index]) : BasePages();
}

BasePages BaseImage::of_segment(int32_t id) {
  for (const auto& segment : image_.manifest().system_v().segments()) {
    if (segment.object().id() == id) return pages_of(segment);
  }
  return {};
}

template <typename Memory>
void place(const std::vector<Extent>& extents, const std::vector<std::string>& files, Memory& memory) {
  memory.clear_runs();
  memory.clear_layers();
  std::map<std::string_view, uint32_t> layers;
  for (const auto& extent : extents) {
    uint32_t layer = 0;
    if (extent.file != Extent::kOwn) {
      const std::string& name = files[static_cast<size_t>(extent.file)];
      auto [known, is_new] = layers.try_emplace(name, memory.layers_size() + 1);
      if (is_new) memory.add_layers(name);
      layer = known->second;
    }
    add_run(*memory.mutable_runs(), extent, layer);
  }
}

template <typename Memory>
Result<void> BaseImage::share_pages(BasePages pages, Memory& memory) {
  if (pages.runs.empty() || memory.runs().empty()) return {};
  STASIS_TRY(Fd own, open_file(writer_->directory() + "/" + memory.page_file(), O_RDWR));
  std::vector<Pages> present;
  for (const auto& run : memory.runs()) {
    Pages& part = present.emplace_back();
    part.address = run.address();
    part.size = run.size();
  }
  // In the own file a page is where it is in the object.
  auto read = [&](uint64_t address, std::span<char> into) {
    return pread_all(own.get(), into, static_cast<off_t>(address)).ok();
  };
  auto extents = compare(find_candidates(present, pages), pages, read, {});
  drop_wasteful_files(extents, pages);
  for (auto& extent : extents) {
    if (extent.file == Extent::kOwn) {
      extent.offset = extent.address;
    } else {
      // Mostly before it has been sent to the disk. Where holes cannot be made it stays, and does no harm.
      (void)::fallocate(own.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(extent.address), static_cast<off_t>(extent.size));
    }
  }
  std::vector<std::string> names;
  for (const auto& file : pages.files) names.push_back(file.name);
  place(extents, names, memory);
  need(memory.layers());
  return {};
}

template void place(const std::vector<Extent>&, const std::vector<std::string>&, schema::Memory&);
template Result<void> BaseImage::share_pages(BasePages, schema::SharedMemory&);
template Result<void> BaseImage::share_pages(BasePages, schema::IpcSegment&);

}  // namespace stasis::checkpoint
