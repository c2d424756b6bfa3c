#include "fs/view_file.h"

#include <array>
#include <cerrno>
#include <utility>

#include "core/view_header_edit.h"
#include "fs/content_edit.h"
#include "fs/door_file.h"
#include "fs/header_edits.h"
#include "fs/holders.h"
#include "fs/text_pieces.h"

namespace accrete {

// An open view. Shows the newest snapshot that has all of it; so it follows growth where its inode
// does, and keeps what it shows when that is taken away.
class OpenView : public OpenFile {
 public:
  OpenView(std::shared_ptr<ViewNode> node, Shown shown, bool writes, const Caller& opener)
      : node_(std::move(node)),
        writes_(writes),
        staged_(std::make_shared<StagedView>(this, opener)),
        generation_(shown.pinned->generation),
        shown_(std::make_shared<const Shown>(std::move(shown))) {
    // Who writes changes what is kept, and does so faster where nothing is.
    keeps_pages_ = node_->pages_.add_opener(node_, !writes);
    if (node_->extends_) state().watch(node_);
    if (!writes) return;
    MutexLock lock(node_->mutex_);
    node_->writers_.push_back(staged_);
  }

  Manner manner() const override {
    Manner manner = writes_ ? Manner{true, false} : state().tree().reading_manner();
    manner.keep_cache = keeps_pages_;
    return manner;
  }

  void read(Reply reply, std::uint64_t offset, std::size_t size, bool fills_cache) override {
    // Pages are all others' who have the file open as well, so they never show what is staged.
    if (const auto replacement = fills_cache ? nullptr : this->replacement()) {
      std::string buffer(size, '\0');
      const Result<std::size_t> got =
          replacement->read(offset, std::as_writable_bytes(std::span<char>(buffer)));
      if (!got.ok()) return reply.error(got.error());
      return reply.bytes(std::string_view(buffer).substr(0, *got));
    }
    std::shared_ptr<const Shown> shown = fills_cache ? current() : edits_.over(current());
    if (fills_cache) {
      // What came to the view's end meanwhile is to be noted, too.
      std::uint64_t noted = 0;
      do {
        noted = shown->content.elements;
        node_->pages_.note(shown->content, is_current(), node_);
        shown = current();
      } while (shown->content.elements != noted);
    }
    reply_range(std::move(reply), state().cube(), *shown, offset, size);
  }

  void write(Reply reply, std::uint64_t offset, std::span<const std::byte> bytes,
             WriteManner manner) override {
    if (const auto replacement = manner.is_page ? nullptr : this->replacement()) {
      const Status status =
          manner.appends ? replacement->append(bytes) : replacement->write(offset, bytes);
      if (!status.ok()) return refuse(reply, status.error());
      return reply.written(bytes.size());
    }
    // Pages show no edits of cards, and bring none.
    const std::shared_ptr<const Shown> shown = manner.is_page ? current() : edits_.over(current());
    if (manner.appends) offset = shown->content.total();
    const PokeOrigin origin{manner.is_page ? node_->number() : 0};
    if (!node_->format_.is_binary())
      return write_text(std::move(reply), *shown, offset, bytes, origin);
    Written written;
    const Status status = write_range(state().cube(), *shown, offset, bytes, origin, written);
    if (status.ok()) edits_.put(written.texts);
    answer(std::move(reply), status, bytes.size(), std::move(written.poked), origin);
  }

  Result<bool> settle() override {
    if (!node_->format_.is_binary()) {
      std::vector<Poked> poked;
      const Status status = pieces_.settle(state().cube(), *current(), poked);
      for (Poked& each : poked)
        state().tree().publisher().announce(node_->state_, std::move(each), nullptr);
      ACCRETE_CHECK(status);
      return false;
    }
    ACCRETE_CHECK(
        edits_.settle([this](const TextChanges& before, const TextChanges& now) -> Status {
          const std::shared_ptr<const Shown> shown = current();
          const auto header_with = [&](const TextChanges& changes) {
            std::string header = shown->content.head;
            changes.lay_over(0, std::as_writable_bytes(std::span(header)));
            return header;
          };
          ACCRETE_CHECK(edit_view_header(state().cube(), *shown->content.view, header_with(before),
                                         header_with(now)));
          // Names mean files with other headers now.
          state().tree().publisher().announce(node_->state_, nullptr, nullptr);
          return {};
        }));
    return edits_.has_taken();
  }

  void flush(Reply reply, const Caller& caller) override {
    const std::shared_ptr<Reply> later = state().tree().later(std::move(reply));
    const std::shared_ptr<Replacement> replacement = this->replacement();
    if (replacement == nullptr) {
      const Result<bool> settled = settle();
      if (!settled.ok()) return refuse(*later, settled.error());
      return state().tree().publisher().after([later] { later->ok(); }, *settled,
                                              WaitsWith::nothing);
    }
    // This file stays: the kernel releases it after the answer.
    state().tree().workers().post(
        [this, replacement, caller, later] { close(*replacement, caller, later); });
  }

  void release() override {
    {
      MutexLock lock(node_->mutex_);
      std::erase(node_->writers_, staged_);
    }
    node_->pages_.drop_opener(*node_);
    if (node_->extends_) state().unwatch(*node_);
    node_->end();
    const std::shared_ptr<Replacement> replacement = this->replacement();
    if (replacement == nullptr || (!replacement->dirty() && is_settled())) return;
    state().cube().record({"refuse", "", std::nullopt, EINVAL,
                           "what was written over a view was not complete; it stays as it was"});
  }

 private:
  CubeState& state() const { return *node_->state_; }

  std::shared_ptr<Replacement> replacement() const { return staged_->replacement(); }
  // The last close has committed, or has told its error.
  bool is_settled() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return answer_.has_value();
  }

  // Elements of a text may come in parts.
  void write_text(Reply reply, const Shown& shown, std::uint64_t offset,
                  std::span<const std::byte> bytes, PokeOrigin origin) {
    std::vector<Poked> poked;
    const Status status = pieces_.write(state().cube(), shown, offset, bytes, origin, poked);
    answer(std::move(reply), status, bytes.size(), std::move(poked), origin);
  }

  void answer(Reply reply, const Status& status, std::size_t bytes, std::vector<Poked> poked,
              PokeOrigin origin) {
    if (!status.ok()) record_refusal(status.error());
    answer_write(node_->state_, std::move(reply), status, bytes, std::move(poked), origin);
  }

  void record_refusal(const Error& error) {
    state().cube().record({"refuse", "", std::nullopt, error.number(), error.sentence});
  }

  void refuse(Reply& reply, const Error& error) {
    record_refusal(error);
    reply.error(error);
  }

  // As at a door: what is incomplete is an error only where nobody can complete it any more.
  void close(Replacement& replacement, const Caller& caller, const std::shared_ptr<Reply>& reply)
      EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (answer_ && !replacement.dirty()) return reply->status(*answer_);
      answer_.reset();
    }
    const std::shared_ptr<const Shown> shown = current();
    const View& view = *shown->content.view;
    RecentValues::Ticket former;
    const Status status = replacement.commit(shown->pinned, view, node_->format_, former);
    const std::array<std::uint64_t, 1> inos{node_->ino()};
    if (!status.ok() && status.error().code == std::errc::invalid_argument &&
        is_held(caller.pid, inos))
      return reply->ok();
    {
      MutexLock lock(mutex_);
      answer_ = status;
    }
    if (!status.ok()) record_refusal(status.error());
    std::function<void()> then = [reply, status] { reply->status(status); };
    if (former == nullptr) return then();
    if (status.ok()) then = durable_answer(node_->state_, reply);
    state().tree().publisher().announce(
        node_->state_, Poked{std::move(former), view, {0, view.element_count()}}, std::move(then));
  }

  std::shared_ptr<const Shown> current() EXCLUDES(mutex_) {
    Pinned newest = state().cube().pin();
    MutexLock lock(mutex_);
    if (newest->generation <= generation_) return shown_;
    generation_ = newest->generation;
    if (node_->extends_) {
      ViewNode::Reach reach = node_->reach(newest);
      if (reach.pinned->generation > shown_->pinned->generation)
        shown_ = std::make_shared<const Shown>(
            node_->show(std::move(reach.pinned), std::move(reach.view)));
    } else if (node_->form_.end(newest->axes).ok()) {
      shown_ = std::make_shared<const Shown>(Shown{std::move(newest), shown_->content});
    }
    return shown_;
  }

  // Whether the cube still has what it shows.
  bool is_current() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return shown_->pinned->generation >= generation_;
  }

  const std::shared_ptr<ViewNode> node_;
  const bool writes_;
  bool keeps_pages_ = false;
  const std::shared_ptr<StagedView> staged_;
  HeaderEdits edits_;
  TextPieces pieces_;
  mutable Mutex mutex_;
  std::uint64_t generation_ GUARDED_BY(mutex_);
  std::shared_ptr<const Shown> shown_ GUARDED_BY(mutex_);
  std::optional<Status> answer_ GUARDED_BY(mutex_);  // of the last close
};

std::unique_ptr<OpenFile> open_view(std::shared_ptr<ViewNode> node, Shown shown, bool writes,
                                    const Caller& opener) {
  return std::make_unique<OpenView>(std::move(node), std::move(shown), writes, opener);
}

}  // namespace accrete
