#include "tests/power_loss/workload.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include "core/fits_card.h"
#include "tests/core/poke_fixture.h"

namespace accrete::power_loss {

namespace {

constexpr DType types[] = {DType::u8, DType::i16, DType::u16, DType::f32, DType::f64};
constexpr std::uint64_t width = 24, height = 20;
constexpr std::size_t most_frames = 10;

// What the cube does not allow as it is, which changes nothing.
struct Refusal : std::runtime_error {
  using runtime_error::runtime_error;
};

void must(const Status& status) {
  if (status.ok()) return;
  const Error& error = status.error();
  if (error.code == std::errc::invalid_argument || error.code == std::errc::operation_not_permitted)
    throw Refusal(error.sentence);
  throw std::runtime_error(error.sentence);
}
template <class T>
T must(Result<T> result) {
  must(result.ok() ? Status() : Status(result.error()));
  return std::move(result).value();
}

Result<FrameId> put(Cube& cube, const std::string& file, IngestRequest request, bool replaces,
                    std::int64_t mtime) {
  const std::string name = request.name;
  ACCRETE_TRY(const auto ingest, cube.begin_ingest(std::move(request)));
  for (std::size_t at = 0; at < file.size(); at += 4096)
    ACCRETE_CHECK(ingest->write(at, as_bytes(std::string_view(file).substr(at, 4096))));
  if (replaces) ACCRETE_CHECK(ingest->set_name(name, true));
  ingest->set_mtime(mtime);
  return ingest->commit();
}

std::string random_file(const Cube& cube, const Shape& shape, std::mt19937_64& random) {
  const Pinned pinned = cube.pin();
  const DType type = pinned->definition.defined ? pinned->definition.coding.type
                                                : types[random() % std::size(types)];
  const FormatId format = random() % 2 == 0 ? FormatId::fits : FormatId::npy;
  return testing::frame_file(
      format, type, shape,
      testing::random_elements(random, type, *checked_product({shape.begin(), shape.size()})));
}

}  // namespace

Status add_frame(Cube& cube, const std::string& name, std::mt19937_64& random) {
  IngestRequest request;
  request.name = name;
  const auto id = put(cube, random_file(cube, {width, height}, random), request, false, 1);
  return id.ok() ? Status() : Status(id.error());
}

Workload::Workload(const std::string& store, std::uint64_t seed, Teller mark)
    : path_(store), random_(seed), mark_(std::move(mark)) {
  open();
  told("open");
  mark_("synced 0");
  told_names();
  if (const auto places = cube_->pin()->frames.count(); places > 0)
    next_ = static_cast<int>(1000 * places);
}

void Workload::open() {
  cube_.reset();
  store_.reset();
  store_ = must(Store::open(path_, {}));
  auto cube = store_->find("c");
  cube_ = cube.ok() ? *cube : must(store_->create("c"));
}

void Workload::close() {
  cube_.reset();
  store_.reset();
}

void Workload::told(const std::string& operation, std::optional<View> replaced) {
  mark_("acked " + std::to_string(states_.size()));
  State state{operation, look(*cube_), std::move(replaced)};
  if (!states_.empty()) share_elements(state.seen, states_.back().seen);
  states_.push_back(std::move(state));
}

void Workload::told_names() {
  mark_("names " + std::to_string(names_.size()));
  names_.push_back(store_->names());
}

void Workload::sync() {
  must(store_->sync());
  mark_("synced " + std::to_string(states_.size() - 1));
}

const std::vector<std::string>& Workload::operations() {
  static const std::vector<std::string> all = {
      "append",     "prepend", "insert",  "ragged",     "known name", "replace frame", "poke",
      "replace",    "remove",  "restore", "discard",    "rename",     "property",      "cards",
      "attributes", "sync",    "reopen",  "checkpoint", "other cube"};
  return all;
}

void Workload::apply_any() {
  // A checkpoint takes many records.
  for (;;) {
    const std::string& operation = operations()[random_() % operations().size()];
    if (operation == "checkpoint" && random_() % 4 != 0) continue;
    if (apply(operation)) return;
  }
}

std::string Workload::any(std::initializer_list<const char*> words) {
  return words.begin()[random_() % words.size()];
}

bool Workload::apply(const std::string& operation) {
  try {
    return attempt(operation);
  } catch (const Refusal&) {
    return false;
  }
}

bool Workload::attempt(const std::string& operation) {
  const Pinned pinned = cube_->pin();
  const bool is_full = pinned->places.size() >= most_frames;
  if (operation == "append" || operation == "prepend" || operation == "insert" ||
      operation == "ragged" || operation == "known name" || operation == "replace frame") {
    if (is_full) return false;
    const bool needs_frames = operation == "known name" || operation == "replace frame";
    if (needs_frames && pinned->live_frames() == 0) return false;
    IngestRequest request;
    request.name = "f" + std::to_string(next_++);
    if (needs_frames)
      request.name = cube_->frame_name(
          *pinned->frames.find(pinned->frames_in_order(false)[random_() % pinned->live_frames()]));
    if (operation == "prepend") request.side = Side::prepend;
    if (operation == "insert" && pinned->live_frames() > 0) {
      request.side = Side::insert;
      request.axis = pinned->grow_axis();
      request.at = random_() % (pinned->shape()[*request.axis] + 1);
    }
    Shape shape{width, height};
    if (operation == "ragged") shape = {1 + random_() % (2 * width), 1 + random_() % (2 * height)};
    const bool replaces = operation == "replace frame";
    must(put(*cube_, random_file(*cube_, shape, random_), request, replaces, next_++));
    told(operation);
    return true;
  }
  if (operation == "poke") return poke();
  if (operation == "replace") return replace();
  if (operation == "remove" || operation == "restore" || operation == "discard" ||
      operation == "rename" || operation == "cards" || operation == "attributes") {
    const auto body = [&](FrameId id, const std::string& name) -> Status {
      if (operation == "remove") return cube_->remove_frame(name, name);
      if (operation == "restore") return cube_->restore_frame(name, name);
      if (operation == "discard") return cube_->discard_frame(name);
      if (operation == "rename") return cube_->rename_frame(name, "r" + std::to_string(next_++));
      if (operation == "attributes")
        return cube_->set_frame_attributes(id, next_++, 0600 + random_() % 64, 1, std::nullopt);
      auto cards = cube_->frame_cards(*cube_->pin()->frames.find(id));
      cards.push_back(make_integer_card("KEY" + std::to_string(random_() % 4), next_++, ""));
      return cube_->set_frame_cards(id, cards);
    };
    const bool removed = operation == "restore" || operation == "discard";
    if (!with_frame(removed, body)) return false;
    told(operation);
    return true;
  }
  if (operation == "property") {
    set_property();
  } else if (operation == "sync") {
    sync();
  } else if (operation == "reopen") {
    open();
    mark_("synced " + std::to_string(states_.size() - 1));
  } else if (operation == "checkpoint") {
    if (pinned->live_frames() == 0) return false;
    checkpoint();
  } else if (operation == "other cube") {
    change_other_cube();
  } else {
    throw std::runtime_error("no such operation: " + operation);
  }
  return true;
}

bool Workload::with_frame(bool removed,
                          const std::function<Status(FrameId, const std::string&)>& body) {
  const Pinned pinned = cube_->pin();
  const auto ids = pinned->frames_in_order(removed);
  if (ids.empty()) return false;
  const FrameId id = ids[random_() % ids.size()];
  must(body(id, cube_->frame_name(*pinned->frames.find(id))));
  return true;
}

bool Workload::poke() {
  const Pinned pinned = cube_->pin();
  if (pinned->live_frames() == 0) return false;
  const View view = testing::random_view(random_, pinned->axes);
  const Interval range = testing::random_range(random_, view.element_count());
  const DType type = pinned->definition.coding.type;
  must(testing::poke(*cube_, pinned, view, range,
                     testing::random_elements(random_, type, range.length())));
  told("poke");
  return true;
}

bool Workload::replace() {
  const Pinned pinned = cube_->pin();
  if (pinned->live_frames() == 0) return false;
  const View view = testing::random_view(random_, pinned->axes);
  const auto elements =
      testing::random_elements(random_, pinned->definition.coding.type, view.element_count());
  {
    const PosixFile file = must(cube_->temporary_file());
    must(file.write(0, elements));
    RecentValues::Ticket former;
    must(cube_->replace(pinned, view, file, former));
  }
  told("replace", view);
  return true;
}

void Workload::set_property() {
  const std::string name = any({"header", "order", "samename", "ragged", "durability", "formats"});
  std::string value;
  if (name == "header")
    value = make_integer_card("OWN", next_++, "");
  else if (name == "order")
    value = any({"arrival", "name"});
  else if (name == "samename")
    value = any({"once", "append"});
  else if (name == "ragged")
    value = any({"pad", "pad"});
  else if (name == "durability")
    value = any({"close", "disk"});
  else
    value = any({"fits", "npy", "fits npy raw"});
  must(cube_->set_property(name, value));
  told("property " + name + " = " + value);
}

// Records that change nothing, until the journal is long enough.
void Workload::checkpoint() {
  const Pinned pinned = cube_->pin();
  const FrameId id = pinned->frames_in_order(false).front();
  for (int n = 0; n < 470; ++n)
    must(cube_->set_frame_attributes(id, std::nullopt, std::nullopt, std::nullopt, std::nullopt));
  open();
  mark_("synced " + std::to_string(states_.size() - 1));
}

void Workload::change_other_cube() {
  if (store_->find("d").ok())
    must(random_() % 2 == 0 ? store_->rename("d", "e") : store_->remove("d"));
  else if (store_->find("e").ok())
    must(store_->remove("e"));
  else
    must(store_->create("d"));
  told_names();
}

void Workload::stir() {
  write_out_some(path_ + "/c", random_);
}

void write_out_some(const std::string& directory, std::mt19937_64& random) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    if (random() % 2 == 0) files.push_back(entry.path());
  std::shuffle(files.begin(), files.end(), random);
  for (const std::string& file : files) {
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    ::sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    ::close(fd);
  }
  if (random() % 2 == 0) return;
  const std::string unrelated = directory + "/../../unrelated";
  const int fd = ::open(unrelated.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ::write(fd, "x", 1) != 1 || ::fsync(fd) != 0)
    throw std::runtime_error("an unrelated file");
  ::close(fd);
}

}  // namespace accrete::power_loss
