#include "image/tar.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>

namespace stasis::image {
namespace {

constexpr size_t kBlock = 512;
constexpr char kZeros[kBlock] = {};

struct Header {
  char name[100];
  char mode[8];
  char uid[8];
  char gid[8];
  char size[12];
  char mtime[12];
  char checksum[8];
  char type;
  char link[100];
  char magic[6];
  char version[2];
  char user[32];
  char group[32];
  char major[8];
  char minor[8];
  char prefix[155];
  char rest[12];
};
static_assert(sizeof(Header) == kBlock);

constexpr char kFile = '0', kDirectory = '5', kExtended = 'x', kGlobal = 'g';
// The largest number of eleven octal digits; more is said by a record.
constexpr uint64_t kMostInHeader = (uint64_t{1} << 33) - 1;
// Paths are the longest that records hold.
constexpr uint64_t kRecordsLimit = 256 << 10;
constexpr uint64_t kMostBytes = uint64_t{1} << 56;
constexpr int64_t kSecond = 1'000'000'000;

constexpr uint64_t padding_after(uint64_t size) { return (kBlock - size % kBlock) % kBlock; }

unsigned checksum(Header header) {
  std::memset(header.checksum, ' ', sizeof header.checksum);
  unsigned sum = 0;
  const auto* bytes = reinterpret_cast<const unsigned char*>(&header);
  for (size_t i = 0; i < kBlock; ++i) sum += bytes[i];
  return sum;
}

// As many digits as there is room for, and a NUL.
template <size_t N>
void put_octal(char (&field)[N], uint64_t value) {
  field[N - 1] = '\0';
  for (size_t i = N - 1; i-- > 0; value >>= 3) field[i] = static_cast<char>('0' + (value & 7));
}

template <size_t N>
std::optional<uint64_t> get_octal(const char (&field)[N]) {
  uint64_t value = 0;
  if (field[N - 1] != '\0') return {};
  for (size_t i = 0; i + 1 < N; ++i) {
    if (field[i] < '0' || field[i] > '7') return {};
    value = value << 3 | static_cast<uint64_t>(field[i] - '0');
  }
  return value;
}

// "27 path=a/long/name\n": the number counts itself.
std::string record(std::string_view key, std::string_view value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t length = rest + 1;
  while (fmt::formatted_size("{}", length) + rest != length)
    length = fmt::formatted_size("{}", length) + rest;
  return fmt::format("{} {}={}\n", length, key, value);
}

bool fits_header(std::string_view name) {
  return name.size() <= sizeof(Header::name) &&
         std::all_of(name.begin(), name.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

template <typename T>
std::optional<T> number(std::string_view text) {
  T value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

Header make_header(std::string_view name, char type, uint32_t mode, uint64_t size, int64_t seconds) {
  Header header = {};
  std::memcpy(header.name, name.data(), std::min(name.size(), sizeof header.name));
  put_octal(header.mode, mode);
  put_octal(header.uid, 0);
  put_octal(header.gid, 0);
  put_octal(header.size, size <= kMostInHeader ? size : 0);
  put_octal(header.mtime, static_cast<uint64_t>(seconds));
  header.type = type;
  std::memcpy(header.magic, "ustar", 6);
  std::memcpy(header.version, "00", 2);
  put_octal(header.major, 0);
  put_octal(header.minor, 0);
  // Six digits, NUL, space.
  const std::string sum = fmt::format("{:06o}", checksum(header));
  std::memcpy(header.checksum, sum.data(), 6);
  header.checksum[7] = ' ';
  return header;
}

std::string sparse_map(const Member& member) {
  const bool ends_in_hole =
      member.segments.empty() || member.segments.back().offset + member.segments.back().size < member.size;
  std::string map = fmt::format("{}\n", member.segments.size() + (ends_in_hole ? 1 : 0));
  for (const Segment& segment : member.segments) map += fmt::format("{}\n{}\n", segment.offset, segment.size);
  // How other tars learn where the file ends.
  if (ends_in_hole) map += fmt::format("{}\n0\n", member.size);
  map.append(padding_after(map.size()), '\0');
  return map;
}

// Of all bytes of the archive.
class RunningSum {
 public:
  RunningSum() : state_(XXH3_createState(), XXH3_freeState) { XXH3_128bits_reset(state_.get()); }
  void add(std::span<const char> bytes) { XXH3_128bits_update(state_.get(), bytes.data(), bytes.size()); }
  std::string text() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
  }

 private:
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_;
};

}  // namespace

uint64_t Member::stored() const {
  uint64_t total = 0;
  for (const Segment& segment : segments) total += segment.size;
  return total;
}

struct TarWriter::State {
  ByteSink* sink;
  RunningSum sum;
  uint64_t in_member = 0;  // bytes after its header
  uint64_t left = 0;

  Result<void> write(std::span<const char> bytes) {
    sum.add(bytes);
    return sink->write(bytes);
  }
  Result<void> write_header(const Header& header) {
    return write({reinterpret_cast<const char*>(&header), sizeof header});
  }
  Result<void> pad() {
    STASIS_CHECK(write({kZeros, padding_after(in_member)}));
    in_member = 0;
    return {};
  }
  Result<void> write_records(std::string_view name, char type, const std::string& records) {
    STASIS_CHECK(write_header(make_header(name, type, 0600, records.size(), 0)));
    STASIS_CHECK(write(records));
    return write({kZeros, padding_after(records.size())});
  }
};

TarWriter::TarWriter(ByteSink& sink) : state_(std::make_unique<State>(State{&sink, {}})) {}
TarWriter::~TarWriter() = default;

Result<void> TarWriter::begin(std::string_view comment) {
  return state_->write_records("pax_global_header", kGlobal, record("comment", comment));
}

Result<void> TarWriter::add(const Member& member) {
  State& state = *state_;
  STASIS_CHECK(state.pad());
  const bool sparse = member.stored() != member.size;
  const std::string map = sparse ? sparse_map(member) : std::string();
  const uint64_t stored = map.size() + member.stored();
  const int64_t modified_ns = std::max<int64_t>(member.modified_ns, 0);

  std::string records;
  std::string name = member.name;
  if (sparse) {
    records += record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") +
               record("GNU.sparse.name", member.name) +
               record("GNU.sparse.realsize", fmt::format("{}", member.size));
    // For a tar that does not know sparse files.
    name = "GNUSparseFile.0/" + member.name.substr(member.name.find_last_of('/') + 1);
  } else if (!fits_header(member.name)) {
    records += record("path", member.name);
  }
  if (stored > kMostInHeader) records += record("size", fmt::format("{}", stored));
  if (modified_ns % kSecond != 0 || modified_ns / kSecond > static_cast<int64_t>(kMostInHeader)) {
    records += record("mtime", fmt::format("{}.{:09}", modified_ns / kSecond, modified_ns % kSecond));
  }
  if (!records.empty()) {
    STASIS_CHECK(state.write_records("PaxHeaders/" + name.substr(0, 80), kExtended, records));
  }
  STASIS_CHECK(state.write_header(make_header(name, member.is_directory() ? kDirectory : kFile, member.mode,
                                              stored, modified_ns / kSecond)));
  STASIS_CHECK(state.write(map));
  state.in_member = stored;
  state.left = member.stored();
  return {};
}

Result<void> TarWriter::data(std::span<const char> bytes) {
  if (bytes.size() > state_->left)
    return Error{"export", {}, "more bytes than its header says", {}, ErrorCode::kFailed};
  state_->left -= bytes.size();
  return state_->write(bytes);
}

Result<std::string> TarWriter::sum() {
  STASIS_CHECK(state_->pad());
  return state_->sum.text();
}

Result<void> TarWriter::end() {
  STASIS_CHECK(state_->pad());
  STASIS_CHECK(state_->write(kZeros));
  return state_->write(kZeros);
}

struct TarReader::State {
  ByteSource* source;
  std::string name;
  RunningSum sum;
  std::string sum_before;
  uint64_t padding = 0;  // after the data of the present member
  uint64_t left = 0;

  Error damaged(std::string cause) const {
    return {"import", name, std::move(cause), "nothing was imported; export it again, or copy the file again",
            ErrorCode::kDamaged};
  }

  Result<void> read(std::span<char> bytes) {
    for (size_t have = 0; have < bytes.size();) {
      STASIS_TRY(const size_t got, source->read(bytes.subspan(have)));
      if (got == 0) return damaged("its contents end too early");
      have += got;
    }
    sum.add(bytes);
    return {};
  }

  Result<void> read_padding() {
    char bytes[kBlock];
    STASIS_CHECK(read({bytes, padding}));
    if (std::memcmp(bytes, kZeros, padding) != 0) return damaged("there is something between two files");
    padding = 0;
    return {};
  }

  // Nothing: a block of zeros.
  Result<std::optional<Header>> read_header() {
    Header header;
    STASIS_CHECK(read({reinterpret_cast<char*>(&header), sizeof header}));
    if (std::memcmp(&header, kZeros, kBlock) == 0) return std::optional<Header>();
    if (std::memcmp(header.magic, "ustar", 6) != 0 || std::memcmp(header.version, "00", 2) != 0)
      return damaged("this is not an export of stasis: there is no tar archive in it");
    const std::string sum_text(header.checksum, 6);
    unsigned stated = 0;
    for (char c : sum_text) {
      if (c < '0' || c > '7') return damaged("the checksum of a header is no number");
      stated = stated << 3 | static_cast<unsigned>(c - '0');
    }
    if (stated != checksum(header)) return damaged("the checksum of a header is wrong");
    if (header.prefix[0] != '\0' || header.link[0] != '\0')
      return damaged("a header has fields that an export does not have");
    return std::optional(header);
  }

  struct Records {
    std::optional<std::string> comment, path, sparse_name;
    std::optional<uint64_t> size, real_size;
    std::optional<int64_t> modified_ns;
    int sparse_version = 0;  // major and minor
  };

  Result<void> take_record(Records& records, std::string_view key, std::string_view value) const {
    const std::string text(value);
    const Error bad = damaged(fmt::format("its record {} has an impossible value", key.substr(0, 40)));
    if (value.empty() || value.find('\0') != value.npos) return bad;
    if (key == "comment") {
      records.comment = text;
    } else if (key == "path") {
      records.path = text;
    } else if (key == "GNU.sparse.name") {
      records.sparse_name = text;
    } else if (key == "size" || key == "GNU.sparse.realsize") {
      const auto size = number<uint64_t>(value);
      if (!size || *size > kMostBytes) return bad;
      (key == "size" ? records.size : records.real_size) = *size;
    } else if (key == "mtime") {
      const size_t dot = value.find('.');
      const auto seconds = number<int64_t>(value.substr(0, dot));
      const auto fraction =
          dot == value.npos ? std::optional<int64_t>(0) : number<int64_t>(value.substr(dot + 1));
      if (!seconds || !fraction || *seconds < 0 || *fraction < 0 || *fraction >= kSecond ||
          *seconds >= std::numeric_limits<int64_t>::max() / kSecond ||
          (dot != value.npos && value.size() - dot != 10))
        return bad;
      records.modified_ns = *seconds * kSecond + *fraction;
    } else if (key == "GNU.sparse.major") {
      if (value != "1") return bad;
      records.sparse_version += 1;
    } else if (key == "GNU.sparse.minor") {
      if (value != "0") return bad;
      records.sparse_version += 2;
    } else {
      return damaged("it has a record that an export does not have");
    }
    return {};
  }

  Result<Records> read_records(const Header& header) {
    const auto size = get_octal(header.size);
    if (!size || *size == 0 || *size > kRecordsLimit) return damaged("the size of its records is impossible");
    std::string text(*size, '\0');
    STASIS_CHECK(read(text));
    padding = padding_after(*size);
    STASIS_CHECK(read_padding());
    Records records;
    for (std::string_view rest = text; !rest.empty();) {
      const size_t space = rest.find(' ');
      const auto length = number<size_t>(rest.substr(0, std::min(space, rest.size())));
      if (space == rest.npos || !length || *length > rest.size() || *length < space + 3 ||
          rest[*length - 1] != '\n')
        return damaged("its records cannot be parsed");
      const std::string_view line = rest.substr(space + 1, *length - space - 2);
      const size_t equals = line.find('=');
      if (equals == line.npos) return damaged("its records cannot be parsed");
      STASIS_CHECK(take_record(records, line.substr(0, equals), line.substr(equals + 1)));
      rest.remove_prefix(*length);
    }
    return records;
  }

  // The numbers of a sparse file's map, which fills whole blocks at the begin of its data.
  class MapReader {
   public:
    explicit MapReader(State& state) : state_(state) {}
    Result<uint64_t> next() {
      uint64_t value = 0;
      for (int digits = 0;; ++digits) {
        if (at_ == kBlock) {
          if (state_.left < kBlock) return state_.damaged("the map of a sparse file is too long");
          STASIS_CHECK(state_.read(block_));
          state_.left -= kBlock;
          at_ = 0;
        }
        const char c = block_[at_++];
        if (c == '\n' && digits > 0) return value;
        if (c < '0' || c > '9' || digits == 18)
          return state_.damaged("the map of a sparse file cannot be parsed");
        value = value * 10 + static_cast<uint64_t>(c - '0');
      }
    }
    bool rest_is_zero() const {
      return std::all_of(block_ + at_, block_ + kBlock, [](char c) { return c == '\0'; });
    }

   private:
    State& state_;
    char block_[kBlock] = {};
    size_t at_ = kBlock;
  };

  Result<void> read_map(Member& member) {
    MapReader map(*this);
    STASIS_TRY(const uint64_t count, map.next());
    if (count > kMostSegments + 1) return damaged("the map of a sparse file is too long");
    uint64_t end = 0, stored = 0;
    for (uint64_t i = 0; i < count; ++i) {
      STASIS_TRY(const uint64_t offset, map.next());
      STASIS_TRY(const uint64_t size, map.next());
      const bool is_end = i + 1 == count && offset == member.size && size == 0;
      if (offset < end || offset > member.size || size > member.size - offset || (size == 0 && !is_end))
        return damaged("the map of a sparse file contradicts itself");
      if (size != 0) member.segments.push_back({offset, size});
      end = offset + size;
      stored += size;
    }
    if (!map.rest_is_zero()) return damaged("there is something behind the map of a sparse file");
    if (stored != left) return damaged("the map of a sparse file does not go with its data");
    return {};
  }
};

TarReader::TarReader(ByteSource& source, std::string name)
    : state_(std::make_unique<State>(State{&source, std::move(name), {}, {}})) {}
TarReader::~TarReader() = default;

Result<void> TarReader::begin(std::string_view comment) {
  State& state = *state_;
  STASIS_TRY(const auto header, state.read_header());
  if (!header || header->type != kGlobal) return state.damaged("this is not an export of stasis");
  STASIS_TRY(const auto records, state.read_records(*header));
  if (!records.comment) return state.damaged("this is not an export of stasis");
  if (*records.comment == comment) return {};
  Error error = state.damaged("this is not an export of stasis, or one of another version");
  error.hint = "use the stasis that wrote it";
  return error;
}

Result<std::optional<Member>> TarReader::next() {
  State& state = *state_;
  if (state.left != 0) return Error{"import", state.name, "not all of a file was read"};
  STASIS_CHECK(state.read_padding());
  state.sum_before = state.sum.text();
  STASIS_TRY(auto header, state.read_header());
  if (!header) {
    STASIS_TRY(auto second, state.read_header());
    if (second) return state.damaged("there is a file behind its end");
    char byte;
    STASIS_TRY(const size_t more, state.source->read({&byte, 1}));
    if (more != 0) return state.damaged("something follows the end of the archive in it");
    return std::optional<Member>();
  }
  State::Records records;
  if (header->type == kExtended) {
    STASIS_TRY(records, state.read_records(*header));
    STASIS_TRY(header, state.read_header());
    if (!header) return state.damaged("records belong to no file");
  }
  if (header->type != kFile && header->type != kDirectory)
    return state.damaged("it holds something else than files and directories");

  const auto size = get_octal(header->size);
  const auto mode = get_octal(header->mode);
  const auto seconds = get_octal(header->mtime);
  if (!size || !mode || !seconds || *mode > 0777) return state.damaged("a header has an impossible number");
  Member member;
  member.name = std::string(header->name, strnlen(header->name, sizeof header->name));
  if (records.path) member.name = *records.path;
  member.mode = static_cast<uint32_t>(*mode);
  member.modified_ns = records.modified_ns.value_or(static_cast<int64_t>(*seconds) * kSecond);
  const bool sparse = records.sparse_version != 0 || records.sparse_name || records.real_size;
  const uint64_t in_archive = records.size.value_or(*size);
  state.left = in_archive;
  state.padding = padding_after(in_archive);
  if (sparse) {
    if (records.sparse_version != 3 || !records.sparse_name || !records.real_size || records.path)
      return state.damaged("the records of a sparse file are not complete");
    member.name = *records.sparse_name;
    member.size = *records.real_size;
    STASIS_CHECK(state.read_map(member));
  } else {
    member.size = in_archive;
    if (in_archive != 0) member.segments.push_back({0, in_archive});
  }
  if (member.is_directory() != (header->type == kDirectory) ||
      (member.is_directory() && (sparse || member.size != 0)))
    return state.damaged("a file and a directory are mixed up in it");
  if (member.name.empty()) return state.damaged("a file in it has no name");
  return std::optional(std::move(member));
}

Result<void> TarReader::data(std::span<char> bytes) {
  if (bytes.size() > state_->left) return state_->damaged("a file is shorter than it should be");
  STASIS_CHECK(state_->read(bytes));
  state_->left -= bytes.size();
  return {};
}

uint64_t TarReader::left() const { return state_->left; }

std::string TarReader::sum_before() const { return state_->sum_before; }

}  // namespace stasis::image
