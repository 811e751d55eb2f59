#include "cli/page.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

#include "cli/output.h"
#include "image/reader.h"
#include "stasis/fd.h"

namespace stasis::cli {
namespace {

constexpr const char* kStyle = R"(
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #f4f4f2 }
  main { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1.5rem }
  article { background: #fff; border: 1px solid #ddd; border-radius: 6px; overflow: hidden }
  img { display: block; width: 100%; background: #000 }
  div { padding: .7rem 1rem }
  h2 { font-size: 1rem; margin: 0 }
  .tag { background: #fe9; border-radius: 3px; padding: 0 .4em; font-weight: normal }
  .none { color: #777 }
)";

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        // A tag is any bytes.
        out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    }
  }
  return out;
}

std::string base64(const std::string& bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j)
      group = group << 8 | (j < count ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j) out += j <= count ? kDigits[group >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

// Through the image, which has checked whose the file is.
Result<std::string> read_picture(const image::Entry& entry) {
  STASIS_TRY(const auto image, image::Image::open(entry.directory));
  STASIS_TRY(Fd file, image.open_file(image.manifest().display().picture()));
  return read_all(file.get());
}

std::string picture_html(const image::Entry& entry, const std::string& name) {
  const auto nothing = [](const std::string& why) {
    return fmt::format("<div class=\"none\">{}</div>\n", escaped(why));
  };
  if (!entry.problem.empty()) return nothing(entry.problem);
  if (entry.picture.empty()) return nothing("no picture: the session had no display");
  auto png = read_picture(entry);
  if (!png.ok()) return nothing(png.error().message());
  return fmt::format("<img alt=\"the screen at {}\" src=\"data:image/png;base64,{}\">\n", escaped(name),
                     base64(*png));
}

std::string entry_html(const image::Entry& entry) {
  const std::string name = fmt::format("{}@{}", entry.session, entry.id);
  std::string html =
      fmt::format("<article id=\"{0}\">\n{1}<div><h2>{0}", escaped(name), picture_html(entry, name));
  if (!entry.tag.empty()) html += fmt::format(" <span class=\"tag\">{}</span>", escaped(entry.tag));
  html += "</h2>\n";
  if (entry.problem.empty())
    html += fmt::format("<time>{}</time>, <span class=\"size\">{}</span>, {} on disk\n",
                        iso_time(entry.created_ns), human_size(entry.logical), human_size(entry.own));
  return html + "</div></article>\n";
}

}  // namespace

std::string checkpoint_page(const std::string& title, const std::vector<image::Entry>& entries) {
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n<main>\n",
      escaped(title), kStyle);
  for (const auto& entry : entries) page += entry_html(entry);
  return page + "</main>\n</body>\n</html>\n";
}

Result<void> write_page(const std::string& path, const std::string& page) {
  if (path == "-") return write_all(1, page);
  const std::string draft = fmt::format("{}.{}", path, ::getpid());
  STASIS_TRY(Fd file, open_file(draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
  auto written = write_all(file.get(), page);
  if (written.ok() && ::rename(draft.c_str(), path.c_str()) < 0) written = errno_error("write", path);
  if (!written.ok()) ::unlink(draft.c_str());
  return written;
}

}  // namespace stasis::cli
