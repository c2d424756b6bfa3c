#include "core/history.h"

#include <fcntl.h>

#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>

#include "core/bytes.h"

namespace accrete {

namespace {

using nlohmann::json;

constexpr std::uint64_t look_back = 64 << 10;

std::string iso_time() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch())
                      .count() % 1000;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[32];
  std::snprintf(text + std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc), 8, ".%03dZ",
                static_cast<int>(ms));
  return text;
}

}  // namespace

Result<std::unique_ptr<History>> History::open(const PosixFile& directory, bool writable) {
  ACCRETE_TRY(PosixFile file, PosixFile::open_at(directory, "history",
                                                 writable ? O_RDWR | O_CREAT : O_RDONLY, 0600));
  ACCRETE_TRY(const std::uint64_t size, file.size());
  auto history = std::unique_ptr<History>(new History(std::move(file), size));
  history->find_last_error();
  return history;
}

// Looks at the file's end only: an older error is no longer news.
void History::find_last_error() {
  MutexLock lock(mutex_);
  const std::uint64_t from = size_ > look_back ? size_ - look_back : 0;
  std::string tail(size_ - from, '\0');
  const auto n = file_.read(from, std::as_writable_bytes(std::span(tail)));
  if (!n.ok()) return;
  tail.resize(*n);
  for (std::size_t end = tail.rfind('\n'); end != std::string::npos && end > 0;) {
    const std::size_t before = tail.rfind('\n', end - 1);
    const std::size_t begin = before == std::string::npos ? 0 : before + 1;
    const json line = json::parse(tail.begin() + static_cast<std::ptrdiff_t>(begin),
                                  tail.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    if (line.is_object() && line.value("errno", 0) != 0) {
      last_error_ = line.value("sentence", "") + "\n";
      return;
    }
    end = before;
  }
}

void History::record(const Event& event) {
  json line = {{"time", iso_time()}, {"event", event.what}};
  if (!event.name.empty()) line["name"] = event.name;
  if (event.place) line["place"] = *event.place;
  if (event.error != 0) {
    line["errno"] = event.error;
    line["error"] = ::strerrorname_np(event.error);
  }
  if (!event.sentence.empty()) line["sentence"] = event.sentence;
  // Names are bytes; what is not UTF-8 in them becomes U+FFFD.
  const std::string text = line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  MutexLock lock(mutex_);
  if (file_.write(size_, as_bytes(text)).ok())
    size_ += text.size();
  else
    (void)file_.truncate(size_);
  if (event.error != 0) last_error_ = event.sentence + "\n";
}

std::string History::last_error() const {
  MutexLock lock(mutex_);
  return last_error_;
}

}  // namespace accrete
