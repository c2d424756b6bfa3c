#include "fs/door_file.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <utility>

namespace accrete {

namespace {

// "tmp" and eight characters of Python's tempfile, which makes an empty file and closes it; who
// asked for it (astropy, when a header has grown) opens it anew by its name.
bool is_python_temporary_name(std::string_view name) {
  constexpr std::string_view prefix = "tmp";
  if (!name.starts_with(prefix) || name.size() != prefix.size() + 8) return false;
  return std::all_of(name.begin() + prefix.size(), name.end(), [](char c) {
    return ('a' <= c && c <= 'z') || ('0' <= c && c <= '9') || c == '_';
  });
}

}  // namespace

std::int64_t wall_clock_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

bool is_temporary_name(std::string_view name) {
  if (name.starts_with(".goutputstream-")) return true;
  constexpr std::size_t suffix = 7;  // ".XXXXXX"
  if (name.size() < suffix + 2 || name[0] != '.' || name[name.size() - suffix] != '.') return false;
  const std::string_view random = name.substr(name.size() - suffix + 1);
  return std::all_of(random.begin(), random.end(),
                     [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; });
}

DoorFile::DoorFile(std::shared_ptr<Ingest> ingest, bool can_be_mapped, std::string name,
                   std::uint32_t mode, std::uint32_t uid, std::uint32_t gid)
    : ingest_(std::move(ingest)),
      can_be_mapped_(can_be_mapped),
      name_(std::move(name)),
      mode_(mode),
      uid_(uid),
      gid_(gid),
      mtime_ns_(wall_clock_ns()) {}

Result<std::shared_ptr<DoorFile>> DoorFile::begin(CubeState& state, const Door& door,
                                                  std::string_view name, std::uint32_t mode,
                                                  std::uint32_t uid, std::uint32_t gid) {
  IngestRequest request;
  request.name = name;
  request.axis = door.axis;
  request.side = door.side;
  request.at = door.at;
  request.mode = mode & 07777;
  request.uid = uid;
  request.gid = gid;
  ACCRETE_TRY(std::shared_ptr<Ingest> ingest, state.cube().begin_ingest(std::move(request)));
  return std::shared_ptr<DoorFile>(new DoorFile(std::move(ingest), state.tree().maps_for_writing(),
                                                std::string(name), mode & 07777, uid, gid));
}

Status DoorFile::alive() const {
  if (discarded_)
    return fail(std::errc::operation_canceled, "'" + name_ + "' was refused or removed");
  return {};
}

Status DoorFile::write(std::uint64_t offset, std::span<const std::byte> bytes, bool append) {
  {
    MutexLock lock(mutex_);
    ACCRETE_CHECK(alive());
  }
  {
    MutexLock lock(attributes_mutex_);
    mtime_ns_ = wall_clock_ns();
  }
  bytes_written_ += bytes.size();
  return append ? ingest_->append(bytes) : ingest_->write(offset, bytes);
}

Result<std::size_t> DoorFile::read(std::uint64_t offset, std::span<std::byte> target) {
  {
    MutexLock lock(mutex_);
    ACCRETE_CHECK(alive());
  }
  return ingest_->read(offset, target);
}

Status DoorFile::truncate(std::uint64_t size) {
  {
    MutexLock lock(mutex_);
    ACCRETE_CHECK(alive());
  }
  if (size == ingest_->size()) return {};
  return ingest_->truncate(size);
}

bool DoorFile::awaits_more() const {
  return is_temporary_name(name_) || (is_python_temporary_name(name_) && ingest_->empty());
}

DoorFile::Outcome DoorFile::commit() {
  // So numpy makes a file that it then maps. Where that fails it is no frame of zeros.
  if (!can_be_mapped_ && bytes_written_ == 1 && ingest_->size() > 1) {
    answer_ = fail(std::errc::invalid_argument,
                   "only one byte was written, and files here cannot be mapped for writing");
    return {*answer_, std::nullopt, false};
  }
  const bool was_committed = ingest_->committed().has_value();
  const Result<FrameId> id = ingest_->commit();
  if (!id.ok()) {
    answer_ = Status(id.error());
    return {*answer_, std::nullopt, false};
  }
  answer_ = Status();
  return {Status(), *id, was_committed};
}

DoorFile::Outcome DoorFile::close(const std::function<bool()>& is_held) {
  MutexLock lock(mutex_);
  if (const Status status = alive(); !status.ok()) return {status, std::nullopt, false};
  if (awaits_more()) return {};
  if (answer_ && !ingest_->dirty()) return {*answer_, std::nullopt, false};
  Outcome outcome = commit();
  if (!outcome.status.ok() && outcome.status.error().code == std::errc::invalid_argument &&
      is_held()) {
    answer_.reset();
    return {};
  }
  if (!outcome.status.ok()) ingest_->note_refusal(outcome.status.error());
  return outcome;
}

void DoorFile::add_description() {
  MutexLock lock(mutex_);
  ++descriptions_;
}

DoorFile::Departure DoorFile::drop_description() {
  MutexLock lock(mutex_);
  Departure departure;
  departure.was_last = --descriptions_ == 0;
  departure.discarded = discarded_;
  if (!departure.was_last || discarded_ || awaits_more()) return departure;
  // Pages of a shared mapping may have come after the last close.
  if (!answer_ || ingest_->dirty())
    departure.outcome = commit();
  else
    departure.outcome.status = *answer_;
  if (!departure.outcome.status.ok()) {
    ingest_->abandon(departure.outcome.status.error().sentence);
    discarded_ = departure.discarded = true;
  }
  return departure;
}

bool DoorFile::is_closed() const {
  MutexLock lock(mutex_);
  return descriptions_ == 0;
}

DoorFile::Outcome DoorFile::rename(std::string_view to) {
  MutexLock lock(mutex_);
  if (const Status status = alive(); !status.ok()) return {status, std::nullopt, false};
  if (const Status status = ingest_->set_name(std::string(to), true); !status.ok())
    return {status, std::nullopt, false};
  Outcome outcome;
  if (is_temporary_name(name_) && !is_temporary_name(to)) outcome = commit();
  if (outcome.status.ok()) {
    name_ = to;
  } else {
    answer_.reset();
    if (!ingest_->set_name(name_, false).ok()) discarded_ = true;
  }
  return outcome;
}

void DoorFile::discard(const std::string& why) {
  MutexLock lock(mutex_);
  if (discarded_) return;
  discarded_ = true;
  ingest_->abandon(why);
}

void DoorFile::set_mtime(std::int64_t ns) {
  {
    MutexLock lock(attributes_mutex_);
    mtime_ns_ = ns;
  }
  ingest_->set_mtime(ns);
}

void DoorFile::set_mode(std::optional<std::uint32_t> mode, std::optional<std::uint32_t> uid,
                        std::optional<std::uint32_t> gid) {
  std::uint32_t all[3];
  {
    MutexLock lock(attributes_mutex_);
    all[0] = mode_ = mode.value_or(mode_) & 07777;
    all[1] = uid_ = uid.value_or(uid_);
    all[2] = gid_ = gid.value_or(gid_);
  }
  ingest_->set_mode(all[0], all[1], all[2]);
}

void DoorFile::fill(struct stat& attributes) const {
  MutexLock lock(attributes_mutex_);
  attributes.st_mode = S_IFREG | mode_;
  attributes.st_uid = uid_;
  attributes.st_gid = gid_;
  set_size(attributes, ingest_->size());
  attributes.st_blksize = 256 << 10;  // cp, which maps a buffer of that size for each file
  set_times(attributes, mtime_ns_);
}

std::function<void()> durable_answer(std::shared_ptr<CubeState> state,
                                     std::shared_ptr<Reply> reply) {
  return [state = std::move(state), reply = std::move(reply)] {
    if (state->cube().pin()->definition.settings.sync_each_close)
      state->cube().sync([reply](const Status& status) { reply->status(status); });
    else
      reply->ok();
  };
}

void answer_commit(const std::shared_ptr<CubeState>& state, RecentValues::Ticket former,
                   std::shared_ptr<Reply> reply, WaitsWith held) {
  state->tree().publisher().announce(state, std::move(former),
                                     durable_answer(state, std::move(reply)), held);
}

}  // namespace accrete
