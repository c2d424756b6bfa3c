#include "fs/frame_file.h"

#include <algorithm>
#include <array>
#include <utility>

#include "fs/content_edit.h"
#include "fs/holders.h"

namespace accrete {

namespace {

bool has_texts_of(const FrameRow& a, const FrameRow& b) {
  return a.prefix == b.prefix && a.suffix == b.suffix && a.original == b.original;
}

}  // namespace

FrameFile::~FrameFile() {
  node_->pages_.drop_opener(*node_);
}

void FrameFile::attach(std::shared_ptr<DoorFile> incoming) {
  incoming->add_description();
  MutexLock lock(mutex_);
  incoming_ = std::move(incoming);
}

Status FrameFile::load() {
  ACCRETE_TRY(Shown shown, node_->show());
  MutexLock lock(mutex_);
  shown_ = std::make_shared<const Shown>(std::move(shown));
  return {};
}

std::shared_ptr<DoorFile> FrameFile::incoming() const {
  MutexLock lock(mutex_);
  return incoming_;
}

std::shared_ptr<DoorFile> FrameFile::incoming_behind_pages() const {
  MutexLock lock(mutex_);
  return shown_ == nullptr ? incoming_ : nullptr;
}

Status FrameFile::replace(const Door& door) {
  ACCRETE_TRY(const FrameRow row, node_->row());
  ACCRETE_TRY(
      std::shared_ptr<DoorFile> incoming,
      DoorFile::begin(state(), door, state().cube().frame_name(row), row.mode, row.uid, row.gid));
  attach(std::move(incoming));
  return {};
}

OpenFile::Manner FrameFile::manner() const {
  if (writes_) return {true, false};
  if (incoming() != nullptr) return {true, true};
  return state().tree().reading_manner();
}

std::shared_ptr<const Shown> FrameFile::current() {
  Pinned newest = state().cube().pin();
  MutexLock lock(mutex_);
  if (newest->generation > shown_->pinned->generation) {
    const std::optional<FrameRow> row = newest->frames.find(node_->id_);
    const std::optional<FrameRow> old = shown_->pinned->frames.find(node_->id_);
    // Texts that are the frame's no more are kept by the snapshot that has them.
    if (row && row->state == FrameState::live && old && has_texts_of(*old, *row))
      shown_ = std::make_shared<const Shown>(Shown{std::move(newest), shown_->content});
  }
  return shown_;
}

void FrameFile::read(Reply reply, std::uint64_t offset, std::size_t size, bool fills_cache) {
  if (const auto file = fills_cache ? incoming_behind_pages() : incoming()) {
    if (fills_cache) node_->pages_.note_incoming(node_);
    std::string buffer(size, '\0');
    const Result<std::size_t> got =
        file->read(offset, std::as_writable_bytes(std::span<char>(buffer)));
    if (!got.ok()) return reply.error(got.error());
    return reply.bytes(std::string_view(buffer).substr(0, *got));
  }
  // Its cards change without another inode.
  if (fills_cache) node_->pages_.note(current()->content, false, node_);
  const std::shared_ptr<const Shown> shown = fills_cache ? current() : edits_.over(current());
  reply_range(std::move(reply), state().cube(), *shown, offset, size);
}

void FrameFile::write(Reply reply, std::uint64_t offset, std::span<const std::byte> bytes,
                      WriteManner manner) {
  if (const auto file = manner.is_page ? incoming_behind_pages() : incoming()) {
    const Status status = file->write(offset, bytes, manner.appends);
    if (!status.ok()) return reply.error(status.error());
    return reply.written(bytes.size());
  }
  const auto refuse = [&](const Error& error) { this->refuse(reply, error); };
  const Result<FrameRow> row = node_->row();
  if (!row.ok()) return refuse(row.error());
  if (row->state == FrameState::removed)
    return refuse(fail(std::errc::read_only_file_system, "a removed frame can only be read"));
  if (row->original.length > 0)
    return refuse(fail(std::errc::read_only_file_system,
                       "this frame is kept as it came (packed, or with values that cannot be made "
                       "again); write to its elements through slices/"));
  // Pages show no edits of cards, and bring none.
  const std::shared_ptr<const Shown> shown = manner.is_page ? current() : edits_.over(current());
  if (manner.appends) offset = shown->content.total();
  const PokeOrigin origin{manner.is_page ? node_->number() : 0};
  Written written;
  const Status status = write_range(state().cube(), *shown, offset, bytes, origin, written);
  if (status.ok())
    edits_.put(written.texts);
  else
    record_refusal(status.error());
  answer_write(node_->state_, std::move(reply), status, bytes.size(), std::move(written.poked),
               origin);
}

void FrameFile::record_refusal(const Error& error) {
  const Result<FrameRow> row = node_->row();
  state().cube().record({"refuse", row.ok() ? state().cube().frame_name(*row) : "", std::nullopt,
                         error.number(), error.sentence});
}

void FrameFile::refuse(Reply& reply, const Error& error) {
  record_refusal(error);
  reply.error(error);
}

Result<bool> FrameFile::settle() {
  ACCRETE_CHECK(edits_.settle([this](const TextChanges&, const TextChanges& now) -> Status {
    const std::shared_ptr<const Shown> shown = current();
    TextChanges all = shown->content.changes;
    all.put(now);
    ACCRETE_CHECK(state().cube().set_frame_prefix(node_->id_, shown->content.before, all));
    // Names of views mean files with other headers now.
    state().tree().publisher().announce(node_->state_, nullptr, nullptr);
    return {};
  }));
  return edits_.has_taken();
}

void FrameFile::flush(Reply reply, const Caller& caller) {
  const std::shared_ptr<DoorFile> file = writes_ ? incoming() : nullptr;
  const std::shared_ptr<Reply> later = state().tree().later(std::move(reply));
  if (file == nullptr) {
    const Result<bool> settled = settle();
    if (!settled.ok()) return refuse(*later, settled.error());
    return state().tree().publisher().after([later] { later->ok(); }, *settled, WaitsWith::nothing);
  }
  if (!file->ingest().takes_long()) return close(file, caller, later);
  // This file stays: the kernel releases it after the answer.
  state().tree().workers().post([this, file, caller, later] { close(file, caller, later); });
}

void FrameFile::close(const std::shared_ptr<DoorFile>& file, const Caller& caller,
                      std::shared_ptr<Reply> reply) {
  RecentValues::Ticket former = state().cube().remember_values();
  const bool may_replace = replaces_others();
  const DoorFile::Outcome outcome = file->close([&] {
    const std::array<std::uint64_t, 2> inos{
        node_->ino(), node_->staging_ino_ ? node_->staging_ino_ : node_->ino()};
    return is_held(caller.pid, inos);
  });
  if (!outcome.committed) return reply->status(outcome.status);
  if (node_->incoming() == file) node_->finish(*outcome.committed);
  if (!outcome.contents_changed && !may_replace) former.reset();
  answer_commit(node_->state_, std::move(former), std::move(reply), WaitsWith::nothing);
}

bool FrameFile::replaces_others() const {
  return state().cube().pin()->definition.settings.same_name == SameName::replace;
}

bool FrameFile::is_incoming() const {
  const std::shared_ptr<DoorFile> file = incoming();
  return file != nullptr && !file->committed();
}

void FrameFile::release() {
  if (writes_) {
    MutexLock lock(node_->mutex_);
    std::erase(node_->writers_, this);
  }
  const std::shared_ptr<DoorFile> file = incoming();
  if (file == nullptr) return;
  RecentValues::Ticket former = state().cube().remember_values();
  const bool may_replace = replaces_others();
  const DoorFile::Departure departure = file->drop_description();
  const bool is_own = node_->incoming() == file;
  if (departure.outcome.committed) {
    if (is_own) node_->finish(*departure.outcome.committed);
    if (!departure.outcome.contents_changed && !may_replace) former.reset();
    state().tree().publisher().announce(node_->state_, std::move(former), nullptr);
  }
  if (is_own && departure.discarded) node_->vanish();
  if (is_own && departure.was_last) node_->let_go(*file);
}

}  // namespace accrete
