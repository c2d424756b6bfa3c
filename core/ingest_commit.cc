// The commit of an incoming file (states and transitions: ingest.h).

#include <algorithm>

#include "core/bytes.h"
#include "core/definition.h"
#include "core/fits_card.h"
#include "core/frame_name.h"
#include "core/ingest_file.h"

namespace accrete {

namespace {

constexpr std::size_t copy_step = 1 << 20;
constexpr std::size_t first_look = 64 << 10;  // bytes of a staged file that hold most headers

bool same_elements(const FrameLayout& a, const FrameLayout& b) {
  return a.format == b.format && a.coding == b.coding && a.scaling == b.scaling &&
         a.shape == b.shape && a.fortran_order == b.fortran_order && a.data_offset == b.data_offset;
}

// A name for an older frame whose name is given to a new one: NAME.~N~ with an N that is not in use
// while N-1 is (or 1). Found by doubling and halving, since a camera may write the same name for
// ever.
std::string free_name(const CubeOnDisk& cube, const std::string& name) {
  const auto in_use = [&](unsigned n) {
    return cube.frame_named(numbered_name(name, n)).has_value();
  };
  unsigned used = 0;
  unsigned free = 1;
  for (; in_use(free); free *= 2) used = free;
  while (free - used > 1) {
    const unsigned middle = used + (free - used) / 2;
    (in_use(middle) ? used : free) = middle;
  }
  return numbered_name(name, free);
}

std::string what_was_rounded(const SlabWriter& writer, DType type) {
  if (writer.changed() == 0) return {};
  return std::to_string(writer.changed()) + " values are not those of the file but the nearest " +
         std::string(name_of(type)) + " (meta/convert)";
}

// What a packed file may unpack to: a frame and its header, with gzip also other HDUs beside it.
std::uint64_t most_unpacked(const Limits& limits, Packing packing) {
  const std::uint64_t beside = packing == Packing::tiles ? max_header : std::uint64_t{1} << 40;
  return limits.max_frame > UINT64_MAX - beside ? UINT64_MAX : limits.max_frame + beside;
}

}  // namespace

Status IngestFile::check_length(const FrameLayout& layout) const {
  const std::uint64_t size = source_size();
  const std::string what = unpacked_.is_open() ? "what the file unpacks to" : "the file";
  if (size < layout.least_bytes)
    return fail(std::errc::invalid_argument, "truncated: " + what + " has " + std::to_string(size) +
                                                 " bytes, its header says " +
                                                 std::to_string(layout.least_bytes));
  if (layout.format != FormatId::fits && size > layout.full_bytes) {
    if (layout.format == FormatId::raw)
      return fail(std::errc::invalid_argument,
                  "not a FITS or NPY file, and its " + std::to_string(size) +
                      " bytes are not one raw frame of " + std::to_string(layout.full_bytes));
    return fail(std::errc::invalid_argument, what + " has " + std::to_string(size) +
                                                 " bytes, its header says " +
                                                 std::to_string(layout.full_bytes));
  }
  return {};
}

// What the header says of sums, against what there is.
Status IngestFile::check_sums(const FrameLayout& layout) {
  const Format& file_format = format(layout.format);
  ACCRETE_TRY(const Headers texts, headers(layout));
  if (!file_format.says_sums(texts.image)) return {};
  FitsSummer sum;
  std::uint64_t done = layout.data_offset;
  const std::uint64_t data_end = layout.data_offset + layout.data_bytes;
  if (state_ == State::direct && data_sum_ && data_sum_->bytes() == layout.data_bytes) {
    sum = *data_sum_;
    done = data_end;
  }
  const std::uint64_t end = std::min(source_size(), layout.full_bytes);
  while (done < end) {
    ACCRETE_TRY(const std::string piece,
                text_at(done, std::min<std::uint64_t>(copy_step, end - done)));
    sum.add(as_bytes(piece));
    done += piece.size();
  }
  return file_format.check_sums(texts.image, sum.sum());
}

// The layout by the file's own header as it stands now; a direct stream whose header has become
// another is staged. EINVAL: not complete, or no frame.
Result<FrameLayout> IngestFile::final_layout() {
  using Kind = Format::Look::Kind;
  if (size_ == 0) return fail(std::errc::invalid_argument, "the file is empty");
  if (state_ == State::direct && reserved_->layout.format == FormatId::raw) {
    // Only the lack of a header made it raw; one may have been written since.
    ACCRETE_TRY(const std::string begin, text_at(0, std::min<std::uint64_t>(size_, first_look)));
    const auto found = try_formats(as_bytes(begin), begin.size() == size_, ImageChoice{});
    if (found.ok() && found->kind == Kind::not_mine) return reserved_->layout;
    ACCRETE_CHECK(stage());
  } else if (state_ != State::staged) {
    const bool at_end = state_ == State::probing;
    ACCRETE_TRY(const Format::Look found, look(as_bytes(head_), at_end, false));
    if (found.kind == Kind::layout) return found.layout;
    ACCRETE_CHECK(stage());
  }
  return staged_layout();
}

Result<FrameLayout> IngestFile::staged_layout() {
  using Kind = Format::Look::Kind;
  constexpr int most = 2;  // a gzip file of a file with a packed image
  unpacked_ = PosixFile();
  bool is_image = false;  // what was unpacked is the image that was chosen
  for (int depth = 0;; ++depth) {
    ACCRETE_TRY(const std::uint64_t known, source().size());
    ACCRETE_TRY(const auto mapping, map_shared(source(), known));
    ACCRETE_TRY(const Format::Look found, look({mapping.get(), known}, true, is_image));
    if (found.kind == Kind::layout) return found.layout;
    if (found.kind != Kind::packed || depth == most)
      return fail(std::errc::invalid_argument, found.kind == Kind::packed
                                                   ? "packed more than twice"
                                                   : "the file's header is not complete");
    ACCRETE_CHECK(cube_->step_making_room([&]() REQUIRES(lock_) { return unpack(found); }));
    is_image = found.packing == Packing::tiles;
  }
}

Status IngestFile::unpack(const Format::Look& found) {
  Unpacker& unpacker = cube_->unpacker();
  const std::uint64_t most = most_unpacked(cube_->limits(), found.packing);
  ACCRETE_TRY(PosixFile target, PosixFile::unnamed_in(cube_->directory()));
  const int from = source().fd();
  std::uint64_t size = 0;
  if (found.packing == Packing::tiles) {
    ACCRETE_TRY(size, unpacker.decompress(from, target.fd(), found.hdu, most));
  } else {
    // First no more than a header: what it says bounds what the disk has to take.
    ACCRETE_TRY(size, unpacker.inflate(from, target.fd(), max_header, most));
    if (size > max_header) {
      ACCRETE_TRY(const auto mapping, map_shared(target, max_header));
      ACCRETE_TRY(const Format::Look inner, look({mapping.get(), max_header}, false, false));
      std::uint64_t keep = size;
      if (inner.kind == Format::Look::Kind::layout) {
        ACCRETE_CHECK(check_frame_size(inner.layout));
        keep = std::min(size, inner.layout.full_bytes);
      }
      ACCRETE_TRY(size, unpacker.inflate(from, target.fd(), keep, most));
    }
  }
  if (size == 0) return fail(std::errc::invalid_argument, "the file unpacks to an empty one");
  unpacked_ = std::move(target);
  unpacked_size_ = size;
  return {};
}

Result<FrameId> IngestFile::commit() {
  MutexLock lock(lock_);
  if (refusal_) return *refusal_;
  if (!dirty_ && committed_) return *committed_;
  auto id = commit_locked();
  if (id.ok()) {
    committed_ = *id;
    dirty_ = false;
  }
  failed_ = !id.ok();
  tell();
  return id;
}

Result<FrameId> IngestFile::commit_locked() {
  if (state_ == State::direct)
    ACCRETE_CHECK(
        cube_->step_making_room([&]() REQUIRES(lock_) { return reserved_->writer->finish(); }));
  ACCRETE_TRY(const FrameLayout layout, final_layout());
  ACCRETE_CHECK(check_length(layout));
  ACCRETE_CHECK(check_sums(layout));
  if (state_ == State::direct) {
    if (same_elements(layout, reserved_->layout)) {
      if (owns_frame_) {
        ACCRETE_CHECK(cube_->step_making_room([&]() REQUIRES(lock_) { return amend(layout); }));
        return *committed_;
      }
      reserved_->layout = layout;  // what surrounds the elements may have changed
      return commit_reserved(layout);
    }
    ACCRETE_CHECK(stage());  // a structural card was rewritten
  }
  if (state_ == State::probing) ACCRETE_CHECK(stage());
  return commit_reserved(layout);
}

// Commits what is in reserved layers, or brings the staged file into some. When other commits have
// changed what the coordinates mean, it is staged and reserved anew; the last try keeps the lock.
Result<FrameId> IngestFile::commit_reserved(const FrameLayout& layout) {
  const std::array<std::uint64_t, 2> digest = digest_all();
  constexpr int tries = 3;
  bool has_made_room = false;
  for (int turn = 1; turn <= tries; ++turn) {
    if (state_ == State::staged && turn < tries) {
      ACCRETE_TRY(const bool has_layers, reserve_making_room(layout, true));
      (void)has_layers;
      Status pumped = cube_->step_making_room([&]() REQUIRES(lock_) { return pump(); });
      if (!pumped.ok()) {
        MutexLock lock(cube_->commit_lock());
        give_back_slab();
        return std::move(pumped).error();
      }
    }
    const bool last = state_ == State::staged && turn == tries;
    std::optional<Error> full;  // had no room for the header and the record
    const std::uint64_t since = cube_->room_made();
    std::vector<std::uint64_t> sums;
    if (!last) sums = reserved_->writer->sums();
    {
      MutexLock lock(cube_->commit_lock());
      if (last) {
        ACCRETE_TRY(const bool has_layers, reserve(layout, true));
        (void)has_layers;
        if (Status pumped = pump(); !pumped.ok()) {
          give_back_slab();
          return std::move(pumped).error();
        }
        sums = reserved_->writer->sums();
      }
      if (reservation_holds(*cube_->snapshot())) {
        auto id = publish(digest, sums);
        if (state_ == State::staged) {
          if (!id.ok() || !owns_frame_) give_back_slab();
          reserved_.reset();
        }
        if (id.ok() || !says_full(id.error()) || has_made_room || turn == tries) return id;
        full = id.error();
      } else if (state_ == State::staged) {
        give_back_slab();
      }
    }
    has_made_room = full.has_value();
    if (full && !cube_->make_room(*full, since)) return *full;
    if (!full) ACCRETE_CHECK(stage());
  }
  return fail(std::errc::resource_unavailable_try_again, "the cube changed too often meanwhile");
}

bool IngestFile::reservation_holds(const Snapshot& now) const {
  const Reservation& r = *reserved_;
  if (r.defines) {
    if (now.definition.defined) return false;
    const auto again = define_by(now.definition.settings, r.layout);
    return again.ok() && *again == r.definition;
  }
  if (!now.definition.defined || now.definition.coding != r.definition.coding ||
      now.definition.rank != r.definition.rank || r.slab.axis != axis_to_grow(now) ||
      now.definition.settings.rounding != r.definition.settings.rounding ||
      !Growth::still_fits(now, r.slab))
    return false;
  const auto extent = fit(r.definition, r.layout);
  return extent.ok() && check_ragged(now.definition, now.shape(), *extent, r.slab.axis).ok() &&
         check_cube_size(now.axes, r.slab.axis, *extent, size_of(now.definition.coding.type)).ok();
}

bool IngestFile::needs_original() const {
  return unpacked_.is_open() || !reserved_->writer->invertible();
}

Status IngestFile::store_texts(FrameRow& row, const Settings& settings) {
  HeapFile& heap = cube_->heap();
  const FrameLayout& layout = row.layout;
  const std::uint64_t data_end = layout.data_offset + layout.data_bytes;
  if (settings.drops_residue) {
    const bool is_first = layout.header_offset == 0;
    const bool is_padded = size_ >= layout.full_bytes;
    if (needs_original() || !is_first || !is_padded) return store_canonical(row);
  }
  if (needs_original()) {
    ACCRETE_TRY(row.original, heap.append(staging_, 0, size_));
    row.packed = unpacked_.is_open();
    ACCRETE_TRY(const Headers texts, headers(layout));
    ACCRETE_TRY(row.prefix, heap.append(as_bytes(texts.primary + texts.image)));
    row.layout.header_offset = texts.primary.size();
    row.layout.data_offset = row.prefix.length;
    return {};
  }
  const std::uint64_t end = settings.drops_residue ? std::min(size_, layout.full_bytes) : size_;
  const std::uint64_t suffix = end > data_end ? end - data_end : 0;
  if (state_ == State::staged) {
    ACCRETE_TRY(row.prefix, heap.append(staging_, 0, layout.data_offset));
    ACCRETE_TRY(row.suffix, heap.append(staging_, data_end, suffix));
  } else {
    ACCRETE_TRY(row.prefix, heap.append(as_bytes(head_).first(layout.data_offset)));
    ACCRETE_TRY(const std::string tail, text_at(data_end, suffix));
    ACCRETE_TRY(row.suffix, heap.append(as_bytes(tail)));
  }
  return {};
}

// The elements as the cube has them, in the file's format, with its cards.
Status IngestFile::store_canonical(FrameRow& row) {
  HeapFile& heap = cube_->heap();
  FrameLayout& layout = row.layout;
  const Format& file_format = format(layout.format);
  ACCRETE_TRY(const Headers texts, headers(layout));
  std::vector<std::string> cards = file_format.cards(texts.image);
  // What is said of all HDUs is still to be found.
  for (std::string& card : file_format.cards(texts.primary)) {
    const std::string_view keyword = keyword_of(card);
    const bool has_it = keyword != "HIERARCH" &&  // whose keyword goes on
                        file_format.find_card({texts.image, ""}, keyword);
    if (!is_commentary(keyword) && !has_it) cards.push_back(std::move(card));
  }
  const FileFace face = make_canonical(layout, reserved_->definition.coding.type, std::move(cards));
  ACCRETE_TRY(row.prefix, heap.append(as_bytes(face.header)));
  ACCRETE_TRY(row.suffix, heap.append(as_bytes(std::string(face.trailer, face.trailer_fill))));
  return {};
}

Result<IngestFile::Namesake> IngestFile::find_namesake(
    const std::array<std::uint64_t, 2>* digest) const {
  const std::shared_ptr<const Snapshot> now = cube_->snapshot();
  Namesake found;
  if (owns_frame_) {
    const auto own = now->frames.find(*committed_);
    if (!own || own->state != FrameState::live)
      return fail(std::errc::no_such_file_or_directory, "the frame was removed meanwhile");
    found.replaced = own;
    return found;
  }
  const std::optional<FrameRow> namesake = cube_->frame_named(request_.name);
  if (!namesake) return found;
  const SameName rule = now->definition.settings.same_name;
  if (rule == SameName::refuse)
    return fail(std::errc::file_exists, "the cube has a frame of that name (meta/samename)");
  const bool by_name = replaces_ || rule == SameName::replace;
  if (digest != nullptr && namesake->digest == *digest && (by_name || rule == SameName::once))
    found.same = namesake;
  else if (by_name)
    found.replaced = namesake;
  else
    found.older = namesake;
  return found;
}

// A rename onto a frame with the same bytes brings attributes of its own.
Status IngestFile::refresh(const FrameRow& same) {
  if (!replaces_ || mtime_ns_ == 0) return {};
  return cube_->change([&](Draft& draft) REQUIRES(lock_) -> Status {
    FrameRow row = same;
    row.mtime_ns = mtime_ns_;
    row.mode = request_.mode;
    draft.put(row);
    return {};
  });
}

Result<FrameId> IngestFile::publish(std::array<std::uint64_t, 2> digest,
                                    const std::vector<std::uint64_t>& sums) {
  ACCRETE_TRY(const Namesake namesake, find_namesake(&digest));
  if (namesake.same) {
    ACCRETE_CHECK(refresh(*namesake.same));
    cube_->record({"same", request_.name, std::nullopt, 0,
                   namesake.same->state == FrameState::removed
                       ? "the cube had this very frame, and it was removed"
                       : "the cube has this very frame already"});
    return namesake.same->id;
  }
  Reservation& r = *reserved_;
  if (owns_frame_) request_.name = cube_->frame_name(*namesake.replaced);  // renamed since, maybe
  FrameRow row;
  row.digest = digest;
  std::uint64_t place = 0;
  ACCRETE_CHECK(cube_->change([&](Draft& draft) REQUIRES(lock_, cube_->commit_lock()) -> Status {
    ACCRETE_TRY(place, describe(namesake, sums, row, draft));
    return {};
  }));
  cube_->growth().commit(r.slab);
  constexpr const char* events[] = {"append", "prepend", "insert"};
  cube_->record({namesake.replaced ? "replace" : events[static_cast<unsigned>(request_.side)],
                 request_.name, place, 0, what_was_rounded(*r.writer, r.definition.coding.type)});
  owns_frame_ = true;
  r.committed = cube_->snapshot();
  return row.id;
}

Result<std::uint64_t> IngestFile::describe(const Namesake& namesake,
                                           const std::vector<std::uint64_t>& sums, FrameRow& row,
                                           Draft& draft) {
  HeapFile& heap = cube_->heap();
  const Reservation& r = *reserved_;
  const std::size_t axis = r.slab.axis;
  if (r.defines) draft.define(r.definition);
  if (std::optional<FrameRow> older = namesake.older) {
    ACCRETE_CHECK(cube_->rename_in(draft, *older, free_name(*cube_, request_.name)));
    draft.put(*older);
  }

  row.id = draft.base().frames.count() + 1;
  row.layout = r.layout;
  row.grow_axis = static_cast<std::uint8_t>(axis);
  row.side = request_.side;
  row.names_axis = request_.axis.has_value();
  row.at = request_.at;
  for (const auto& pieces : r.slab.runs) {
    std::uint64_t extent = 0;
    for (const Run& run : pieces) extent += run.length;
    row.first.push_back(pieces.front().first);
    row.extent.push_back(extent);
  }
  row.arrival_ns = now_ns();
  row.mtime_ns = mtime_ns_ != 0 ? mtime_ns_ : row.arrival_ns;
  row.mode = request_.mode;
  row.uid = request_.uid;
  row.gid = request_.gid;
  if (owns_frame_) {
    row.name = namesake.replaced->name;
    row.name_hash = namesake.replaced->name_hash;
  } else {
    ACCRETE_TRY(row.name, heap.append(as_bytes(request_.name)));
    row.name_hash = checksum(as_bytes(request_.name));
  }
  ACCRETE_CHECK(store_texts(row, draft.base().definition.settings));
  if (!r.slab.has_single_runs()) {
    ACCRETE_TRY(row.runs, heap.append(as_bytes(r.slab.runs_text())));
  }
  const bool same_order = row.layout.fortran_order == r.layout.fortran_order;
  const std::vector<std::uint64_t> own = same_order ? sums : r.writer->sums_in_natural_order();
  row.first_sum = first_sum(own);
  ACCRETE_TRY(row.sums, heap.append(as_bytes(sums_text(own))));

  std::string key;
  if (!r.defines) {
    ACCRETE_TRY(key, sort_key_in(draft.base(), r.layout));
  }
  ACCRETE_TRY(std::uint64_t position,
              cube_->position_for(draft, axis, request_.side, request_.at, key));
  if (namesake.replaced) {
    const FrameRow& replaced = *namesake.replaced;
    row.side = replaced.side;
    row.names_axis = replaced.names_axis;
    row.at = replaced.at;
    if (key.empty())
      position = draft.axes()[axis].position_of(replaced.first[axis]).value_or(position);
  }
  const std::uint64_t place = draft.axes()[axis].indexes_before(position);
  draft.put(row);
  ACCRETE_CHECK(cube_->growth().describe(draft, r.slab, position));
  if (namesake.replaced) {
    const FrameRow& replaced = *namesake.replaced;
    ACCRETE_TRY(const FrameRuns runs, cube_->frame_runs(replaced));
    const CubeCoverage after = cube_->coverage()
                                   .moved(r.slab.runs, FrameState::gone, FrameState::live)
                                   .moved(runs, replaced.state, FrameState::gone);
    ACCRETE_CHECK(cube_->take_out(draft, replaced, FrameState::gone, after));
  }
  return place;
}

// Only bytes before or after the elements have changed since the commit.
Status IngestFile::amend(const FrameLayout& layout) {
  const std::array<std::uint64_t, 2> digest = digest_all();
  MutexLock lock(cube_->commit_lock());
  auto row = cube_->snapshot()->frames.find(*committed_);
  if (!row || row->state != FrameState::live)
    return fail(std::errc::no_such_file_or_directory, "the frame was removed meanwhile");
  row->digest = digest;
  row->mtime_ns = mtime_ns_ != 0 ? mtime_ns_ : now_ns();
  request_.name = cube_->frame_name(*row);  // renamed since, maybe
  return cube_->change([&](Draft& draft) REQUIRES(lock_, cube_->commit_lock()) -> Status {
    ACCRETE_TRY(const std::string key, sort_key_in(draft.base(), layout));
    if (!key.empty()) ACCRETE_CHECK(cube_->resort_in(draft, *row, key));
    for (HeapRef* text : {&row->prefix, &row->suffix, &row->original, &row->cards})
      if (const HeapRef old = std::exchange(*text, {}); old.length > 0)
        draft.freed.texts.push_back(old);
    row->layout = layout;
    row->packed = false;
    ACCRETE_CHECK(store_texts(*row, draft.base().definition.settings));
    draft.put(*row);
    return {};
  });
}

std::array<std::uint64_t, 2> IngestFile::digest_all() {
  if (!digest_in_order_ || digested_ != size_) {
    digest_.reset();
    std::vector<std::byte> piece(std::min<std::uint64_t>(copy_step, size_));
    for (digested_ = 0; digested_ < size_;) {
      const auto part =
          std::span(piece).first(std::min<std::uint64_t>(copy_step, size_ - digested_));
      if (state_ == State::staged) {
        const auto n = staging_.read(digested_, part);
        std::fill(part.begin() + static_cast<std::ptrdiff_t>(n.ok() ? *n : 0), part.end(),
                  std::byte{0});
      } else {
        if (!read_locked(digested_, part).ok()) std::fill(part.begin(), part.end(), std::byte{0});
      }
      digest_.add(part);
      digested_ += part.size();
    }
    digest_in_order_ = true;
  }
  return digest_.sum128();
}

}  // namespace accrete
