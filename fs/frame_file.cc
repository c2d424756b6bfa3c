#include "fs/frame_file.h"

#include <algorithm>
#include <array>
#include <utility>

#include "fs/holders.h"

namespace accrete {

namespace {

bool has_texts_of(const Content& content, const FrameRow& row) {
  if (row.original.length > 0) return content.before == row.original;
  return content.before == row.prefix && content.after == row.suffix;
}

}  // namespace

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
    // Texts that are the frame's no more are kept by the snapshot that has them.
    if (row && row->state == FrameState::live && has_texts_of(shown_->content, *row))
      shown_ = std::make_shared<const Shown>(Shown{std::move(newest), shown_->content});
  }
  return shown_;
}

void FrameFile::read(Reply reply, std::uint64_t offset, std::size_t size, bool fills_cache) {
  if (const std::shared_ptr<DoorFile> file = incoming()) {
    std::string buffer(size, '\0');
    const Result<std::size_t> got =
        file->read(offset, std::as_writable_bytes(std::span<char>(buffer)));
    if (!got.ok()) return reply.error(got.error());
    return reply.bytes(std::string_view(buffer).substr(0, *got));
  }
  if (fills_cache) {
    node_->has_pages_ = true;
    if (!watched_.exchange(true)) state().watch(node_);
  }
  const std::shared_ptr<const Shown> shown = current();
  reply_range(std::move(reply), state().cube(), *shown, offset, size);
}

void FrameFile::write(Reply reply, std::uint64_t offset, std::span<const std::byte> bytes,
                      bool append) {
  const std::shared_ptr<DoorFile> file = incoming();
  if (file == nullptr) {
    const Result<FrameRow> row = node_->row();
    state().cube().record({"refuse", row.ok() ? state().cube().frame_name(*row) : "", std::nullopt,
                           EROFS,
                           "a frame in the cube is not changed in place; write it anew under its "
                           "name"});
    return reply.error(EROFS);
  }
  const Status status = file->write(offset, bytes, append);
  if (!status.ok()) return reply.error(status.error());
  reply.written(bytes.size());
}

void FrameFile::flush(Reply reply, const Caller& caller) {
  const std::shared_ptr<DoorFile> file = writes_ ? incoming() : nullptr;
  if (file == nullptr) return reply.ok();
  const std::shared_ptr<Reply> later = state().tree().later(std::move(reply));
  if (!file->ingest().takes_long()) return close(file, caller, later);
  // This file stays: the kernel releases it after the answer.
  state().tree().workers().post([this, file, caller, later] { close(file, caller, later); });
}

void FrameFile::close(const std::shared_ptr<DoorFile>& file, const Caller& caller,
                      std::shared_ptr<Reply> reply) {
  const DoorFile::Outcome outcome = file->close([&] {
    const std::array<std::uint64_t, 2> inos{
        node_->ino(), node_->staging_ino_ ? node_->staging_ino_ : node_->ino()};
    return is_held(caller.pid, inos);
  });
  if (!outcome.committed) return reply->status(outcome.status);
  if (node_->incoming() == file) node_->finish(*outcome.committed);
  answer_commit(node_->state_, outcome.contents_changed, std::move(reply));
}

bool FrameFile::is_incoming() const {
  const std::shared_ptr<DoorFile> file = incoming();
  return file != nullptr && !file->committed();
}

void FrameFile::release() {
  if (watched_) state().unwatch(*node_);
  if (writes_) {
    MutexLock lock(node_->mutex_);
    std::erase(node_->writers_, this);
  }
  const std::shared_ptr<DoorFile> file = incoming();
  if (file == nullptr) return;
  const DoorFile::Departure departure = file->drop_description();
  const bool is_own = node_->incoming() == file;
  if (departure.outcome.committed) {
    if (is_own) node_->finish(*departure.outcome.committed);
    state().tree().publisher().announce(node_->state_, departure.outcome.contents_changed, nullptr);
  }
  if (is_own && departure.discarded) node_->vanish();
  if (is_own && departure.was_last) node_->let_go(*file);
}

}  // namespace accrete
