#include "fs/meta_file.h"

#include <algorithm>
#include <utility>

namespace accrete {

namespace {

// Text as it was at the open.
class TextFile : public OpenFile {
 public:
  explicit TextFile(std::string text)
      : text_(std::make_shared<const std::string>(std::move(text))) {}

  void read(Reply reply, std::uint64_t offset, std::size_t size, bool) override {
    // Once the answer is out, the file may be released before this returns.
    const std::shared_ptr<const std::string> text = text_;
    const auto from = static_cast<std::size_t>(std::min<std::uint64_t>(offset, text->size()));
    reply.bytes(std::string_view(*text).substr(from, size));
  }

 private:
  const std::shared_ptr<const std::string> text_;
};

class PropertyFile : public TextFile {
 public:
  PropertyFile(std::shared_ptr<CubeState> state, std::string name, std::string text)
      : TextFile(std::move(text)), state_(std::move(state)), name_(std::move(name)) {}

  // Each write is one setting. Only of a header several can be one, as editors write them in
  // blocks: it is set by the first that is no whole number of blocks, or by close().
  void write(Reply reply, std::uint64_t offset, std::span<const std::byte> bytes,
             WriteManner manner) override {
    constexpr std::size_t block = 512;
    std::string text;
    {
      MutexLock lock(mutex_);
      if (waiting_.empty()) adds_ = manner.appends || offset > 0;
      waiting_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      if (name_ == "header" && bytes.size() % block == 0 && waiting_.size() <= most_text)
        return reply.written(bytes.size());
      text.swap(waiting_);
    }
    set(text, state_->tree().later(std::move(reply)), bytes.size());
  }

  void flush(Reply reply, const Caller&) override {
    std::string text;
    {
      MutexLock lock(mutex_);
      text.swap(waiting_);
    }
    if (text.empty()) return reply.ok();
    set(text, state_->tree().later(std::move(reply)), std::nullopt);
  }

 private:
  static constexpr std::size_t most_text = 1 << 20;

  // `written`: what a write says; nothing: the answer is that of a close.
  void set(const std::string& text, const std::shared_ptr<Reply>& reply,
           std::optional<std::size_t> written) {
    RecentValues::Ticket former = state_->cube().remember_values();
    const Status status = state_->cube().set_property(name_, text, adds());
    if (!status.ok()) {
      state_->cube().record({"refuse", "meta/" + name_, std::nullopt, status.error().number(),
                             status.error().sentence});
      return reply->error(status.error());
    }
    // A new order changes what names and indexes mean.
    state_->tree().publisher().announce(
        state_, std::move(former),
        [reply, written] { written ? reply->written(*written) : reply->ok(); },
        written ? WaitsWith::lock : WaitsWith::nothing);
  }

  bool adds() const {
    MutexLock lock(mutex_);
    return adds_;
  }

  const std::shared_ptr<CubeState> state_;
  const std::string name_;
  mutable Mutex mutex_;
  std::string waiting_ GUARDED_BY(mutex_);
  bool adds_ GUARDED_BY(mutex_) = false;
};

class HistoryFile : public OpenFile {
 public:
  explicit HistoryFile(std::shared_ptr<CubeState> state) : state_(std::move(state)) {}

  void read(Reply reply, std::uint64_t offset, std::size_t size, bool) override {
    std::string buffer(size, '\0');
    const Result<std::size_t> got =
        state_->cube().read_history(offset, std::as_writable_bytes(std::span<char>(buffer)));
    if (!got.ok()) return reply.error(got.error());
    reply.bytes(std::string_view(buffer).substr(0, *got));
  }

 private:
  const std::shared_ptr<CubeState> state_;
};

Error only_to_read(std::string_view name) {
  return fail(std::errc::operation_not_permitted, std::string(name) + " can only be read");
}

}  // namespace

PropertyNode::PropertyNode(std::shared_ptr<CubeState> state, std::string_view name)
    : Node(identity(state->cube().uid(), name)), state_(std::move(state)), name_(name) {}

Result<struct stat> PropertyNode::attributes() {
  ACCRETE_TRY(const std::string text, state_->cube().property(name_));
  return state_->tree().file_attributes(text.size(), state_->cube().changed_ns(),
                                        Cube::is_settable(name_));
}

Result<bool> PropertyNode::change_attributes(const AttributeChange& change) {
  if (!Cube::is_settable(name_)) return only_to_read("meta/" + name_);
  // Mode, owner and times are taken without effect: editors give them back to what they save.
  if (change.size.value_or(0) != 0)
    return fail(std::errc::operation_not_permitted,
                "meta/" + name_ + " takes a text by write() and nothing else");
  return false;
}

Result<std::unique_ptr<OpenFile>> PropertyNode::open(int flags, const Caller&) {
  if (opens_for_writing(flags) && !Cube::is_settable(name_)) return only_to_read("meta/" + name_);
  ACCRETE_TRY(std::string text, state_->cube().property(name_));
  return std::unique_ptr<OpenFile>(std::make_unique<PropertyFile>(state_, name_, std::move(text)));
}

HistoryNode::HistoryNode(std::shared_ptr<CubeState> state)
    : Node(identity(state->cube().uid())), state_(std::move(state)) {}

Result<struct stat> HistoryNode::attributes() {
  return state_->tree().file_attributes(state_->cube().history_size(), state_->cube().changed_ns(),
                                        false);
}

Result<std::unique_ptr<OpenFile>> HistoryNode::open(int flags, const Caller&) {
  if (opens_for_writing(flags)) return only_to_read("history");
  return std::unique_ptr<OpenFile>(std::make_unique<HistoryFile>(state_));
}

LastErrorNode::LastErrorNode(std::shared_ptr<CubeState> state)
    : Node(identity(state->cube().uid())), state_(std::move(state)) {}

Result<struct stat> LastErrorNode::attributes() {
  return state_->tree().file_attributes(state_->cube().last_error().size(),
                                        state_->cube().changed_ns(), false);
}

Result<std::unique_ptr<OpenFile>> LastErrorNode::open(int flags, const Caller&) {
  if (opens_for_writing(flags)) return only_to_read("last-error");
  return std::unique_ptr<OpenFile>(std::make_unique<TextFile>(state_->cube().last_error()));
}

}  // namespace accrete
