#include "checkpoint/kin.h"

#include <fcntl.h>

#include <utility>

#include "checkpoint/base_image.h"

namespace stasis::checkpoint {

namespace {

// Each generation may add the files of the one before.
constexpr int kMostLayers = 64;

}  // namespace

Kin::Kin(const schema::Manifest& manifest, std::string directory)
    : manifest_(manifest), directory_(std::move(directory)) {
  std::map<int, size_t> by_number;
  for (const auto& process : manifest.processes()) {
    if (process.state() != schema::Process::ZOMBIE) by_number[process.pid()] = process.memory();
  }
  std::map<int, std::vector<size_t>> children;  // by the parent's number; 0: who has none here
  for (const auto& process : manifest.processes()) {
    if (process.state() == schema::Process::ZOMBIE) continue;
    auto parent = by_number.find(process.parent());
    const bool is_here = parent != by_number.end();
    if (is_here) parents_[process.memory()] = parent->second;
    auto& brothers = children[is_here ? process.parent() : 0];
    if (!brothers.empty()) brothers_[process.memory()] = brothers.back();
    brothers.push_back(process.memory());
  }
  std::vector<int> numbers(by_number.size());
  for (const auto& [number, memory] : by_number) numbers[memory] = number;
  order_ = children[0];
  for (size_t next = 0; next < order_.size(); ++next) {
    const auto& more = children[numbers[order_[next]]];
    order_.insert(order_.end(), more.begin(), more.end());
  }
}

Kin::Pages Kin::written_relatives(size_t memory) {
  Pages pages;
  auto add = [&](std::shared_ptr<const BasePages> one) {
    if (one) pages.push_back(std::move(one));
  };
  if (auto parent = parents_.find(memory); parent != parents_.end()) {
    if (!pages_of_parent_ || parent_at_hand_ != parent->second) pages_of_parent_ = pages_of(parent->second);
    parent_at_hand_ = parent->second;
    add(pages_of_parent_);
    if (auto above = parents_.find(parent->second); above != parents_.end()) add(pages_of(above->second));
  }
  if (auto brother = brothers_.find(memory); brother != brothers_.end()) add(pages_of(brother->second));
  return pages;
}

std::shared_ptr<const BasePages> Kin::pages_of(size_t memory) {
  const auto& written = manifest_.memories(static_cast<int>(memory));
  if (written.runs().empty() || written.layers_size() >= kMostLayers) return {};
  auto pages = std::make_shared<BasePages>();
  pages->runs.assign(written.runs().begin(), written.runs().end());
  auto add = [&](const std::string& name) {
    BaseFile& file = pages->files.emplace_back();
    file.name = name;
    // What cannot be read is not shared.
    if (auto opened = open_file(directory_ + "/" + name, O_RDONLY); opened.ok()) {
      file.fd = std::move(opened).value();
      auto [known, is_new] = identities_.try_emplace(name);
      if (is_new) known->second = identify(file.fd.get());
      file.identity = known->second;
    }
  };
  add(written.page_file());
  for (const auto& layer : written.layers()) add(layer);
  return pages;
}

}  // namespace stasis::checkpoint
