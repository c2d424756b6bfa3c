// A cube whose elements are changed in place, against maps from coordinates to values, under random
// histories: frames that come in at any side, ragged; that are removed, restored and discarded;
// elements that are written through views of the present and of the past, where frames gave them
// and where none did; views that are replaced whole; remounts.
//
// ACCRETE_SEED=N repeats one seed, ACCRETE_SEEDS and ACCRETE_STEPS make the run longer.
#include "core/poke.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>

#include "core/replacement.h"
#include "tests/core/poke_fixture.h"
#include "tests/core/view_files.h"

namespace accrete {
namespace {

using testing::Bytes;
using testing::frame_file;
using testing::mask_of;
using testing::random_elements;
using testing::random_range;
using testing::random_view;
using testing::read_range;
using testing::TemporaryDirectory;

using At = std::vector<std::int64_t>;  // coordinates; those of frames that are gone are never used
                                       // again
using Value = Bytes;                   // of one element, native coding

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

At at_of(const Coords& coordinates) {
  return {coordinates.begin(), coordinates.end()};
}

// Its elements are changed in place, whoever looks at them.
struct ModelFrame {
  std::string name;
  bool live = true;
  std::map<At, Value> elements;
};

// An element that was written where no frame gave one.
struct Patch {
  Value value;
  std::uint64_t made = 0;  // steps
  std::uint64_t gone = ~std::uint64_t{0};
};

// A snapshot and what it has to show.
struct Shot {
  Pinned pinned;
  std::vector<std::shared_ptr<ModelFrame>> frames;
  std::uint64_t step = 0;
};

class Pokes {
 public:
  explicit Pokes(std::uint64_t seed) : random_(seed) { mount(); }

  void run(std::uint64_t steps) {
    for (; step_ < steps && !::testing::Test::HasFailure(); ++step_) {
      SCOPED_TRACE("step " + std::to_string(step_));
      told_ = "nothing";
      step();
      SCOPED_TRACE(told_);
      if (!::testing::Test::HasFailure()) check();
    }
  }

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

  void mount() {
    const bool is_new = store_ == nullptr;
    shots_.clear();
    std::erase_if(patches_, [](const auto& entry) { return entry.second.gone != Patch().gone; });
    cube_.reset();
    store_.reset();
    auto store = Store::open(directory_.path() + "/store", {});
    ASSERT_TRUE(store.ok()) << store.error().sentence;
    store_ = std::move(store).value();
    auto cube = is_new ? store_->create("c") : store_->find("c");
    ASSERT_TRUE(cube.ok()) << cube.error().sentence;
    cube_ = *cube;
  }

  // ---- Steps ----

  void step() {
    const std::size_t frames = frames_.size();
    const std::uint64_t dice = below(100);
    const Shape shape = cube_->pin()->shape();
    const bool is_large = frames >= 9 || *checked_product({shape.begin(), shape.size()}) > 3000;
    if (frames == 0 || (dice < 18 && !is_large)) return add();
    if (dice < 26) return remove();
    if (dice < 34) return restore();
    if (dice < (is_large ? 60 : 39)) return discard();
    if (dice < 80) return poke(some_shot());
    if (dice < 84) return poke_a_removed_frame();
    if (dice < 93) return replace(some_shot());
    if (dice < 96) return take_shot();
    if (dice < 98) {
      told_ = "sync";
      EXPECT_TRUE(store_->sync().ok());
      return;
    }
    told_ = "remount";
    mount();
  }

  void take_shot() {
    if (shots_.size() >= 4) shots_.erase(shots_.begin() + static_cast<std::ptrdiff_t>(below(4)));
    shots_.push_back(present());
  }

  Shot present() {
    Shot shot{cube_->pin(), {}, step_};
    for (const auto& frame : frames_)
      if (frame->live) shot.frames.push_back(frame);
    return shot;
  }

  Shot some_shot() {
    return shots_.empty() || !one_in(3) ? present() : shots_[below(shots_.size())];
  }

  static bool is_empty(const Shot& shot) {
    if (!shot.pinned->definition.defined) return true;
    const Shape shape = shot.pinned->shape();
    return std::any_of(shape.begin(), shape.end(), [](std::uint64_t e) { return e == 0; });
  }

  void add() {
    const bool defines = frames_.empty();
    if (defines) {
      ASSERT_FALSE(cube_->pin()->definition.defined);
      patches_.clear();
      type_ = all_dtypes[below(std::size(all_dtypes))];
      rank_ = 1 + below(4);
      ASSERT_TRUE(cube_->set_property("axes", std::string("abcd").substr(0, rank_)).ok());
    }
    const Shape shape = cube_->pin()->shape();
    IngestRequest request;
    request.axis = below(rank_);
    Shape extent;
    for (std::size_t a = 0; a < rank_; ++a) {
      const bool like_the_cube = !defines && a != request.axis && shape[a] > 0 && !one_in(3);
      extent.push_back(like_the_cube ? shape[a] : 1 + below(rank_ < 3 ? 12 : 5));
    }
    request.side = static_cast<Side>(below(3));
    if (request.side == Side::insert) {
      if (defines)
        request.side = Side::append;
      else
        request.at = below(shape[*request.axis] + 1);
    }
    const auto frame = std::make_shared<ModelFrame>();
    frame->name = "f" + std::to_string(names_++);
    told_ =
        "add " + frame->name + " along " + std::to_string(*request.axis) + ", " + to_string(extent);
    const Bytes elements =
        random_elements(random_, type_, *checked_product({extent.begin(), extent.size()}));
    const FormatId format = one_in(2) ? FormatId::npy : FormatId::fits;
    const auto id =
        testing::put(*cube_, frame->name, frame_file(format, type_, extent, elements), request);
    ASSERT_TRUE(id.ok()) << id.error().sentence;
    const View view = *cube_->frame_view(*cube_->pin()->frames.find(*id));
    for (std::uint64_t i = 0; i < view.element_count(); ++i)
      frame->elements[at_of(view.coordinates_of(i))] = value_at(elements, i);
    frames_.push_back(frame);
  }

  std::shared_ptr<ModelFrame> some_frame(bool live) {
    std::vector<std::shared_ptr<ModelFrame>> found;
    for (const auto& frame : frames_)
      if (frame->live == live) found.push_back(frame);
    return found.empty() ? nullptr : found[below(found.size())];
  }
  void remove() {
    const auto frame = some_frame(true);
    if (frame == nullptr) return;
    told_ = "remove " + frame->name;
    const Status status = cube_->remove_frame(frame->name, frame->name);
    ASSERT_TRUE(status.ok()) << status.error().sentence;
    frame->live = false;
  }
  void restore() {
    const auto frame = some_frame(false);
    if (frame == nullptr) return;
    told_ = "restore " + frame->name;
    const Status status = cube_->restore_frame(frame->name, frame->name);
    ASSERT_TRUE(status.ok()) << status.error().sentence;
    frame->live = true;
  }
  void discard() {
    const auto frame = some_frame(false);
    if (frame == nullptr) return;
    told_ = "discard " + frame->name;
    const Status status = cube_->discard_frame(frame->name);
    ASSERT_TRUE(status.ok()) << status.error().sentence;
    std::erase(frames_, frame);
    // A patch goes with the last index of one of its axes, and not before.
    const Pinned now = cube_->pin();
    for (auto& [at, patch] : patches_) {
      if (patch.gone != Patch().gone) continue;
      Coords origin;
      for (const std::int64_t coordinate : at) origin.push_back(coordinate);
      bool is_there = false;
      if (now->definition.defined)
        now->patches.for_overlapping(origin, Shape(origin.size(), 1),
                                     [&](const Box&) { is_there = true; });
      if (is_there) continue;
      EXPECT_FALSE(has_indexes(*now.snapshot, at)) << "a patch went that is in use";
      patch.gone = step_;
    }
  }

  static bool has_indexes(const Snapshot& now, const At& at) {
    if (now.axes.size() != at.size()) return false;
    for (std::size_t a = 0; a < at.size(); ++a)
      if (!now.axes[a].position_of(at[a])) return false;
    return true;
  }

  // ---- What is there ----

  std::size_t size() const { return size_of(type_); }
  Value value_at(const Bytes& elements, std::uint64_t i) const {
    const auto begin = elements.begin() + static_cast<std::ptrdiff_t>(i * size());
    return {begin, begin + static_cast<std::ptrdiff_t>(size())};
  }
  Value pad() const {
    const Element element = default_pad(type_);
    return {element.bytes.begin(), element.bytes.begin() + static_cast<std::ptrdiff_t>(size())};
  }

  // The place of an element in what holds it; nothing: pad.
  Value* find(const Shot& shot, const At& at) {
    for (const auto& frame : shot.frames)
      if (const auto found = frame->elements.find(at); found != frame->elements.end())
        return &found->second;
    const auto patch = patches_.find(at);
    if (patch == patches_.end()) return nullptr;
    // Also those that came later, but for what had gone by then.
    const bool is_seen = patch->second.gone == Patch().gone ||
                         (patch->second.made < shot.step && patch->second.gone >= shot.step);
    return is_seen ? &patch->second.value : nullptr;
  }

  std::string holder_of(const Shot& shot, const At& at) const {
    for (const auto& frame : shot.frames)
      if (frame->elements.count(at) > 0) return "of " + frame->name;
    const auto patch = patches_.find(at);
    if (patch == patches_.end()) return "pad";
    return "written in step " + std::to_string(patch->second.made) + ", until " +
           std::to_string(patch->second.gone);
  }

  // What becomes of the model; nothing: no more index for one of the elements.
  [[nodiscard]] bool write(const Shot& shot, const View& view, Interval range,
                           const Bytes& elements) {
    const Pinned now = cube_->pin();
    std::vector<std::pair<At, Value>> fresh;
    for (std::uint64_t i = 0; i < range.length(); ++i) {
      const At at = at_of(view.coordinates_of(range.begin + i));
      const Value value = value_at(elements, i);
      if (find(shot, at) != nullptr || value == pad()) continue;
      if (!has_indexes(*now.snapshot, at)) return false;
      fresh.emplace_back(at, value);
    }
    for (std::uint64_t i = 0; i < range.length(); ++i)
      if (Value* const place = find(shot, at_of(view.coordinates_of(range.begin + i))))
        *place = value_at(elements, i);
    for (auto& [at, value] : fresh) patches_[at] = {std::move(value), step_};
    return true;
  }

  // ---- Changes ----

  Bytes some_elements(const Bytes& now) {
    Bytes elements = random_elements(random_, type_, now.size() / size());
    for (std::uint64_t i = 0; i < now.size() / size(); ++i) {
      const auto at = static_cast<std::ptrdiff_t>(i * size());
      if (one_in(3)) std::copy_n(now.begin() + at, size(), elements.begin() + at);
      if (one_in(9)) {
        const Value value = pad();
        std::copy(value.begin(), value.end(), elements.begin() + at);
      }
    }
    return elements;
  }

  void poke(const Shot& shot) {
    if (is_empty(shot)) return;
    const View view = random_view(random_, shot.pinned->axes);
    poke(shot, view, random_range(random_, view.element_count()));
  }

  void poke(const Shot& shot, const View& view, Interval range) {
    told_ = "poke [" + std::to_string(range.begin) + ", " + std::to_string(range.end) +
            ") of a view of step " + std::to_string(shot.step);
    const Bytes before = read_range(*cube_, shot.pinned, view, range);
    if (one_in(10)) {
      testing::Refusal refusal;
      RecentValues::Ticket former;
      EXPECT_FALSE(cube_->poke(shot.pinned, view, range, refusal, PokeOrigin{}, former).ok());
      EXPECT_EQ(former, nullptr);
      return;
    }
    const Bytes elements = one_in(12) ? before : some_elements(before);
    const auto origin = one_in(2) ? PokeOrigin{} : PokeOrigin{1};
    const auto poked = testing::poke(*cube_, shot.pinned, view, range, elements, origin);
    if (!write(shot, view, range, elements)) {
      ASSERT_FALSE(poked.ok());
      EXPECT_EQ(poked.error().code, std::errc::no_such_file_or_directory);
      return;
    }
    ASSERT_TRUE(poked.ok()) << poked.error().sentence;
    EXPECT_EQ(*poked == nullptr, elements == before);
  }

  // Through its own file, which shows it all the same.
  void poke_a_removed_frame() {
    const auto frame = some_frame(false);
    if (frame == nullptr) return;
    Shot shot = present();
    const FrameRow row = *shot.pinned->frames.find(*cube_->find_removed(frame->name));
    auto shown = cube_->show_removed(shot.pinned, row);
    ASSERT_TRUE(shown.ok());
    shot.pinned = *shown;
    shot.frames = {frame};
    const View view = *cube_->frame_view(row);
    poke(shot, view, random_range(random_, view.element_count()));
  }

  void replace(const Shot& shot) {
    if (is_empty(shot)) return;
    const View view = random_view(random_, shot.pinned->axes);
    const Bytes before = testing::read_all(*cube_, shot.pinned, view);
    Bytes elements = some_elements(before);
    const testing::FileKind kind = testing::random_kind(random_);
    if (kind == testing::FileKind::text) testing::make_printable(elements, type_);
    std::string file = testing::file_of_view(kind, type_, view.shape(), elements);
    told_ = "replace a view " + to_string(view.shape()) + " of step " + std::to_string(shot.step) +
            " by a file of kind " + std::to_string(static_cast<int>(kind));
    const bool is_cut = one_in(6);
    // Final padding of a FITS file may be missing.
    if (is_cut) file.resize(file.size() - std::min(file.size(), size_of(type_) + 2880));
    auto replacement = Replacement::begin(*cube_);
    ASSERT_TRUE(replacement.ok());
    const std::size_t cut = below(file.size() + 1);
    EXPECT_TRUE((*replacement)->write(cut, as_bytes(std::string_view(file).substr(cut))).ok());
    EXPECT_TRUE((*replacement)->write(0, as_bytes(std::string_view(file).substr(0, cut))).ok());
    EXPECT_TRUE((*replacement)->dirty());
    const bool is_text = kind == testing::FileKind::text;
    const auto poked =
        testing::commit(**replacement, shot.pinned, view, is_text ? FormatId::txt : FormatId::raw);
    EXPECT_FALSE((*replacement)->dirty());
    if (is_cut) {
      ASSERT_FALSE(poked.ok());
      EXPECT_EQ(poked.error().code, std::errc::invalid_argument);
      return;
    }
    if (!write(shot, view, {0, view.element_count()}, elements)) {
      ASSERT_FALSE(poked.ok());
      EXPECT_EQ(poked.error().code, std::errc::no_such_file_or_directory);
      return;
    }
    ASSERT_TRUE(poked.ok()) << poked.error().sentence;
    EXPECT_EQ(*poked == nullptr, elements == before);
  }

  // ---- Checks ----

  void check() {
    Shot now = present();
    ASSERT_EQ(now.pinned->definition.defined, !frames_.empty());
    // Shots of a cube that was defined otherwise have elements of another type.
    std::erase_if(shots_, [&](const Shot& shot) {
      return !now.pinned->definition.defined ||
             now.pinned->definition.coding.type != shot.pinned->definition.coding.type ||
             now.pinned->axes.size() != shot.pinned->axes.size();
    });
    now.step = step_ + 1;
    check(now);
    if (one_in(4) && !is_empty(now)) check(now, *View::whole(now.pinned->axes));
    for (const Shot& shot : shots_) {
      SCOPED_TRACE("as of step " + std::to_string(shot.step));
      check(shot);
    }
    if (const auto frame = some_frame(false)) check_removed(*frame);
  }

  void check(const Shot& shot) {
    if (is_empty(shot)) return;
    check(shot, random_view(random_, shot.pinned->axes));
  }

  void check(const Shot& shot, const View& view) {
    const Interval range = random_range(random_, view.element_count());
    const Bytes elements = read_range(*cube_, shot.pinned, view, range);
    const Bytes mask = mask_of(*cube_, shot.pinned, view);
    for (std::uint64_t i = 0; i < range.length(); ++i) {
      const At at = at_of(view.coordinates_of(range.begin + i));
      const Value* const place = find(shot, at);
      ASSERT_EQ(value_at(elements, i), place == nullptr ? pad() : *place)
          << "element " << i << ", " << holder_of(shot, at);
      ASSERT_EQ(mask[range.begin + i],
                std::byte{place == nullptr ? std::uint8_t{0} : std::uint8_t{1}})
          << "mask of element " << i;
    }
  }

  void check_removed(const ModelFrame& frame) {
    const Pinned pinned = cube_->pin();
    const FrameRow row = *pinned->frames.find(*cube_->find_removed(frame.name));
    auto shown = cube_->show_removed(pinned, row);
    ASSERT_TRUE(shown.ok());
    const View view = *cube_->frame_view(row);
    const Bytes elements = testing::read_all(*cube_, *shown, view);
    for (std::uint64_t i = 0; i < view.element_count(); ++i)
      ASSERT_EQ(value_at(elements, i), frame.elements.at(at_of(view.coordinates_of(i))))
          << frame.name << ", element " << i;
  }

  TemporaryDirectory directory_;
  std::mt19937_64 random_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Cube> cube_;
  DType type_ = DType::u8;
  std::size_t rank_ = 0;
  std::vector<std::shared_ptr<ModelFrame>> frames_;  // live and removed
  std::map<At, Patch> patches_;
  std::vector<Shot> shots_;
  std::uint64_t step_ = 1;
  int names_ = 0;
  std::string told_;
};

TEST(PokeTest, RandomHistoriesEqualMapsOfCoordinates) {
  const std::uint64_t seeds = from_environment("ACCRETE_SEEDS", 4);
  const std::uint64_t steps = from_environment("ACCRETE_STEPS", 300);
  for (std::uint64_t i = 0; i < seeds && !HasFailure(); ++i) {
    const std::uint64_t seed = testing::seed() + i;
    SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(seed));
    Pokes(seed).run(steps);
  }
}

}  // namespace
}  // namespace accrete
