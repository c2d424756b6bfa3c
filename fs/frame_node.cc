#include "fs/frame_node.h"

#include <algorithm>
#include <utility>

#include "core/bytes.h"
#include "core/fits_card.h"
#include "fs/frame_file.h"

namespace accrete {

namespace {

std::atomic<std::uint64_t> next_staging = 0;

Identity staging_identity(std::uint64_t cube_uid) {
  return Identity(NodeKind::staging).add(cube_uid).add(next_staging.fetch_add(1));
}

}  // namespace

Identity frame_identity(std::uint64_t cube_uid, FrameId id) {
  return Identity(NodeKind::frame).add(cube_uid).add(id);
}

FrameNode::FrameNode(std::shared_ptr<CubeState> state, FrameId id)
    : Node(frame_identity(state->cube().uid(), id)),
      state_(std::move(state)),
      id_(id),
      pages_(*state_, false) {}

FrameNode::FrameNode(std::shared_ptr<CubeState> state, std::shared_ptr<DoorFile> incoming,
                     CubeState::StagingName name)
    : Node(staging_identity(state->cube().uid())),
      state_(std::move(state)),
      staging_ino_(ino()),
      pages_(*state_, false),
      incoming_(std::move(incoming)),
      staging_name_(std::move(name)) {}

bool FrameNode::trimmable() const {
  return incoming() == nullptr;
}

std::shared_ptr<DoorFile> FrameNode::incoming() const {
  MutexLock lock(mutex_);
  return incoming_;
}

void FrameNode::set_door(const Door& door) {
  MutexLock lock(mutex_);
  door_ = door;
}

void FrameNode::set_staging_name(CubeState::StagingName name) {
  MutexLock lock(mutex_);
  staging_name_ = std::move(name);
}

void FrameNode::finish(FrameId id) {
  // First: where it is a frame, its number is the frame's.
  state_->tree().nodes().rename(*this, frame_identity(state_->cube().uid(), id));
  id_ = id;
  vanish();
}

void FrameNode::vanish() {
  CubeState::StagingName name;
  {
    MutexLock lock(mutex_);
    name = staging_name_;
  }
  state_->remove_staging(name, *this);
}

void FrameNode::let_go(const DoorFile& incoming) {
  MutexLock lock(mutex_);
  if (incoming_.get() == &incoming && id_ != 0) incoming_ = nullptr;
}

Result<FrameRow> FrameNode::row() const {
  ACCRETE_TRY(FrameRow row, last_row());
  if (row.state != FrameState::gone) return row;
  return fail(std::errc::no_such_file_or_directory, "there is no such frame any more");
}

Result<FrameRow> FrameNode::last_row() const {
  const FrameId id = id_;
  const Pinned pinned = state_->cube().pin();
  if (id != 0)
    if (std::optional<FrameRow> row = pinned->frames.find(id)) return *std::move(row);
  return fail(std::errc::no_such_file_or_directory, "there is no such frame");
}

namespace {

// A part of a text.
HeapRef part_of(const HeapRef& text, std::uint64_t offset, std::uint64_t length) {
  return {text.offset + offset, length, 0};
}

bool is_poked(const Cube& cube, const Snapshot& snapshot, const FrameRow& row) {
  const auto runs = cube.frame_runs(row);
  bool is_poked = false;
  if (runs.ok())
    for_boxes_of(snapshot.boxes, row, *runs,
                 [&](const Box& box, std::uint64_t first, std::uint64_t slots) {
                   for (std::uint64_t slot = first; slot < first + slots; ++slot)
                     is_poked = is_poked || (box.poked >> slot & 1) != 0;
                 });
  return is_poked;
}

// Checksums of elements that are no more what they were become blank cards.
Status blank_sums(const Cube& cube, Content& content, Interval header) {
  std::string text(header.length(), '\0');
  ACCRETE_CHECK(
      cube.read_text(content.before, header.begin, std::as_writable_bytes(std::span(text))));
  const std::string blank(card_length, ' ');
  for (std::size_t at = 0; at + card_length <= text.size(); at += card_length) {
    const std::string_view keyword = keyword_of(std::string_view(text).substr(at, card_length));
    if (keyword == "END") break;
    if (keyword == "CHECKSUM" || keyword == "DATASUM")
      content.changes.put(header.begin + at, as_bytes(blank));
  }
  return {};
}

}  // namespace

Result<Shown> FrameNode::show() const {
  const Cube& cube = state_->cube();
  Pinned pinned = cube.pin();
  const auto found = pinned->frames.find(id_);
  if (!found || found->state == FrameState::gone)
    return fail(std::errc::no_such_file_or_directory, "there is no such frame any more");
  const FrameRow& row = *found;
  const FrameLayout& layout = row.layout;
  Content content;
  if (row.packed) {
    content.before = row.original;
    return Shown{std::move(pinned), std::move(content)};
  }
  content.before = row.prefix;
  content.after = row.suffix;
  if (row.original.length > 0) {
    const std::uint64_t begin = layout.least_bytes - layout.data_bytes;
    const std::uint64_t end = layout.least_bytes;
    content.before = part_of(row.original, 0, begin);
    content.kept = part_of(row.original, begin, layout.data_bytes);
    content.after = part_of(row.original, end, row.original.length - end);
  }
  ACCRETE_TRY(content.view, cube.frame_view(row));
  content.coding = layout.coding;
  const Definition& definition = pinned->definition;
  const Transfer transfer(layout, definition.coding, Rounding::nearest, definition.pad);
  if (transfer.converts() || content.kept.length > 0) content.transfer = transfer;
  content.bytes_per_element = size_of(layout.coding.type);
  content.elements = layout.data_bytes / content.bytes_per_element;
  if (layout.format == FormatId::fits) {
    const std::uint64_t data = content.before.length;
    const Interval header{data - (layout.data_offset - layout.header_offset), data};
    if (row.original.length == 0) content.headers = {{0, layout.primary_bytes}, header};
    if (is_poked(cube, *pinned.snapshot, row)) ACCRETE_CHECK(blank_sums(cube, content, header));
  }
  if (row.state == FrameState::removed) {
    ACCRETE_TRY(pinned, cube.show_removed(pinned, row));
  }
  return Shown{std::move(pinned), std::move(content)};
}

Result<struct stat> FrameNode::attributes() {
  struct stat attributes = state_->tree().file_attributes(0, 0, true);
  {
    MutexLock lock(mutex_);
    if (DoorFile* const file = described_by()) {
      file->fill(attributes);
      return attributes;
    }
  }
  ACCRETE_TRY(const FrameRow row, last_row());
  if (row.state == FrameState::gone) attributes.st_nlink = 0;
  attributes.st_mode = S_IFREG | (row.mode & 07777);
  attributes.st_uid = row.uid;
  attributes.st_gid = row.gid;
  set_size(attributes, row.file_bytes());
  set_times(attributes, row.mtime_ns);
  return attributes;
}

DoorFile* FrameNode::described_by() const {
  return incoming_ != nullptr && (id_ == 0 || incoming_->ingest().dirty()) ? incoming_.get()
                                                                           : nullptr;
}

Node::AttributeBelief FrameNode::attribute_belief() const {
  Lease::Class attributes{state_->cube().uid()};
  attributes.of_attributes = attributes.of_rows = true;
  const Pinned pinned = state_->cube().pin();
  MutexLock lock(mutex_);
  // What was written is told anew once it is the cube's. The kernel's own first write to an empty
  // file ends what it believes of that; a frame that is being written anew may fail to be.
  if (DoorFile* const file = described_by();
      file != nullptr && (id_ != 0 || !file->ingest().empty()))
    return {};
  return {lease_timeout, Lease{attributes, attributes.ground(*pinned.snapshot)}};
}

std::shared_ptr<DoorFile> FrameNode::written_by(const AttributeChange& change) const {
  for (FrameFile* file : writers_)
    if (file == change.file) return file->incoming();
  for (FrameFile* file : writers_)
    if (file->opened_by(change.caller) && file->incoming() != nullptr) return file->incoming();
  // One that is committed is a frame: who has opened that anew starts another.
  const bool begins_anew =
      change.size && incoming_ != nullptr && incoming_->committed() &&
      std::any_of(writers_.begin(), writers_.end(),
                  [&](const FrameFile* file) { return file->opened_by(change.caller); });
  return begins_anew ? nullptr : incoming_;
}

Result<bool> FrameNode::change_attributes(const AttributeChange& asked) {
  AttributeChange change = asked;
  std::shared_ptr<DoorFile> file;
  {
    MutexLock lock(mutex_);
    file = written_by(change);
    const Result<FrameRow> row = this->row();
    if (file == nullptr && row.ok() && change.size == row->file_bytes()) change.size.reset();
    if (change.size && file == nullptr) {
      // The truncation of an open with O_TRUNC, or a truncation in place.
      const auto undecided = std::find_if(writers_.rbegin(), writers_.rend(), [&](FrameFile* f) {
        return f == change.file || (change.file == nullptr && f->opened_by(change.caller));
      });
      if (*change.size != 0 || undecided == writers_.rend() ||
          (row.ok() && row->state == FrameState::removed))
        return fail(std::errc::read_only_file_system,
                    "a frame in the cube is not truncated; write it anew under its name");
      ACCRETE_CHECK((*undecided)->replace(door_));
      return false;
    }
  }
  if (change.size) ACCRETE_CHECK(file->truncate(*change.size));
  const std::optional<FrameId> committed =
      file == nullptr ? std::optional<FrameId>(id_) : file->committed();
  if (file != nullptr) {
    if (change.mtime_ns) file->set_mtime(*change.mtime_ns);
    if (change.mode || change.uid || change.gid)
      file->set_mode(change.mode, change.uid, change.gid);
  }
  if (committed && (change.mtime_ns || change.mode || change.uid || change.gid)) {
    std::optional<std::uint32_t> mode = change.mode;
    if (mode) *mode &= 07777;
    ACCRETE_CHECK(state_->cube().set_frame_attributes(*committed, change.mtime_ns, mode, change.uid,
                                                      change.gid));
    return true;
  }
  return false;
}

std::optional<CacheNotice> FrameNode::after_commit(bool contents_changed) {
  if (!contents_changed || !pages_.any()) return std::nullopt;
  return CacheNotice{number(), 0};
}

Result<std::unique_ptr<OpenFile>> FrameNode::open(int flags, const Caller& caller) {
  auto file = std::make_unique<FrameFile>(std::static_pointer_cast<FrameNode>(shared_from_this()),
                                          opens_for_writing(flags), caller);
  MutexLock lock(mutex_);
  // A second writer of a frame that is complete writes a new one. Who only reads one finds it like
  // any other, though the kernel may not have released its writer yet.
  const auto is_complete = [&] {
    return id_ != 0 && (opens_for_writing(flags) || !incoming_->ingest().dirty());
  };
  if (incoming_ != nullptr && !is_complete()) {
    file->attach(incoming_);
  } else {
    ACCRETE_CHECK(file->load());
  }
  if (opens_for_writing(flags)) writers_.push_back(file.get());
  return std::unique_ptr<OpenFile>(std::move(file));
}

}  // namespace accrete
