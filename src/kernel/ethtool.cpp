#include "kernel/ethtool.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace stasis::kernel {
namespace {

constexpr uint32_t kBits = 32;
constexpr uint32_t kMostFeatures = 1024;

bool ask(int socket, const std::string& name, void* request) {
  ifreq asked = {};
  std::strncpy(asked.ifr_name, name.c_str(), IFNAMSIZ - 1);
  asked.ifr_data = static_cast<char*>(request);
  return ::ioctl(socket, SIOCETHTOOL, &asked) == 0;
}

// A structure of ethtool that ends with an array.
template <typename Head>
class Buffer {
 public:
  Buffer(uint32_t command, size_t bytes) : words_((sizeof(Head) + bytes + 7) / 8) { head()->cmd = command; }
  Head* head() { return reinterpret_cast<Head*>(words_.data()); }

 private:
  std::vector<uint64_t> words_;
};

std::vector<std::string> feature_names(int socket, const std::string& name) {
  Buffer<ethtool_sset_info> sizes(ETHTOOL_GSSET_INFO, sizeof(uint32_t));
  sizes.head()->sset_mask = 1ULL << ETH_SS_FEATURES;
  if (!ask(socket, name, sizes.head()) || sizes.head()->sset_mask == 0) return {};
  const uint32_t count = std::min(sizes.head()->data[0], kMostFeatures);
  Buffer<ethtool_gstrings> strings(ETHTOOL_GSTRINGS, size_t{count} * ETH_GSTRING_LEN);
  strings.head()->string_set = ETH_SS_FEATURES;
  strings.head()->len = count;
  if (!ask(socket, name, strings.head())) return {};
  std::vector<std::string> names;
  for (uint32_t i = 0; i < count; ++i) {
    const char* text = reinterpret_cast<const char*>(strings.head()->data) + size_t{i} * ETH_GSTRING_LEN;
    names.emplace_back(text, ::strnlen(text, ETH_GSTRING_LEN));
  }
  return names;
}

struct State {
  std::vector<std::string> names;
  std::vector<ethtool_get_features_block> blocks;
  bool can_change(size_t i) const { return (blocks[i / kBits].available >> (i % kBits) & 1) != 0; }
  bool is_on(size_t i) const { return (blocks[i / kBits].active >> (i % kBits) & 1) != 0; }
};

State read(int socket, const std::string& name) {
  State state;
  state.names = feature_names(socket, name);
  const uint32_t count = (static_cast<uint32_t>(state.names.size()) + kBits - 1) / kBits;
  Buffer<ethtool_gfeatures> features(ETHTOOL_GFEATURES, count * sizeof(ethtool_get_features_block));
  features.head()->size = count;
  if (count == 0 || !ask(socket, name, features.head())) return {};
  state.blocks.assign(features.head()->features, features.head()->features + count);
  return state;
}

}  // namespace

std::set<std::string> link_features(int socket, const std::string& name) {
  std::set<std::string> on;
  const State state = read(socket, name);
  for (size_t i = 0; i < state.names.size(); ++i) {
    if (state.can_change(i) && state.is_on(i)) on.insert(state.names[i]);
  }
  return on;
}

Result<void> set_link_features(int socket, const std::string& name, const std::set<std::string>& wanted) {
  const State state = read(socket, name);
  Buffer<ethtool_sfeatures> change(ETHTOOL_SFEATURES,
                                   state.blocks.size() * sizeof(ethtool_set_features_block));
  change.head()->size = static_cast<uint32_t>(state.blocks.size());
  bool differs = false;
  for (size_t i = 0; i < state.names.size(); ++i) {
    const bool on = wanted.contains(state.names[i]);
    if (!state.can_change(i) || on == state.is_on(i)) continue;
    auto& block = change.head()->features[i / kBits];
    block.valid |= 1U << (i % kBits);
    if (on) block.requested |= 1U << (i % kBits);
    differs = true;
  }
  if (!differs || ask(socket, name, change.head())) return {};
  return errno_error("set the features of a network interface", name);
}

}  // namespace stasis::kernel
