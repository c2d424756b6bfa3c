// A cube against a plain in-memory array, under random histories of everything that changes a cube:
// frames that come in at any side and in the interior, ragged, under used names and in sorted
// order; that are renamed, removed, restored, replaced and discarded; and remounts.
//
//   ACCRETE_SEEDS=100 ACCRETE_STEPS=10000 core_test --gtest_filter='RandomHistory.*'
//
// is the long run; ACCRETE_SEED=N repeats one seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>
#include <random>

#include "core/checksum.h"
#include "core/cube.h"
#include "core/growth.h"
#include "core/linearize.h"
#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

using testing::frame_file;
using testing::random_elements;
using testing::read_all;
using testing::TemporaryDirectory;

using Bytes = std::vector<std::byte>;
using Index = int;  // a place on an axis, for life; numbers mean nothing else

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

struct ModelFrame {
  int number = 0;  // its name is "n<number>", or with `older`, "n<number>.~<older>~"
  int older = 0;
  bool live = true;
  std::size_t axis = 0;
  std::vector<std::vector<Index>> covers;  // an axis
  Bytes elements;                          // axis 0 fastest
  std::string file;                        // as it came in
  std::uint64_t serial = 0;

  std::string name() const {
    const std::string text = "n" + std::to_string(number);
    return older == 0 ? text : text + ".~" + std::to_string(older) + "~";
  }
  std::pair<int, int> key() const { return {number, older}; }
};

// The rules of growth and removal, as plainly as they can be written.
struct Model {
  bool defined = false;
  DType type = DType::u8;
  std::size_t rank = 0;
  bool sorted = false;                   // by name, along the last axis
  std::vector<std::vector<Index>> axes;  // all indexes in order, those of removed frames too
  std::vector<ModelFrame> frames;
  Index next_index = 0;
  std::uint64_t next_serial = 0;

  bool covered(std::size_t axis, Index index, bool by_live_only) const {
    return std::any_of(frames.begin(), frames.end(), [&](const ModelFrame& f) {
      return (f.live || !by_live_only) &&
             std::find(f.covers[axis].begin(), f.covers[axis].end(), index) != f.covers[axis].end();
    });
  }
  std::vector<Index> shown(std::size_t axis) const {
    std::vector<Index> indexes;
    for (const Index i : axes[axis])
      if (covered(axis, i, true)) indexes.push_back(i);
    return indexes;
  }
  Shape shape() const {
    Shape shape;
    for (std::size_t a = 0; a < rank && defined; ++a) shape.push_back(shown(a).size());
    return shape;
  }
  ModelFrame* find(const std::string& name) {
    for (ModelFrame& f : frames)
      if (f.name() == name) return &f;
    return nullptr;
  }

  void clean() {
    for (std::size_t a = 0; a < rank; ++a)
      std::erase_if(axes[a], [&](Index i) { return !covered(a, i, false); });
    if (frames.empty()) {
      defined = false;
      axes.clear();
      rank = 0;
    }
  }

  std::size_t place_of(std::size_t axis, Index index) const {
    return static_cast<std::size_t>(std::find(axes[axis].begin(), axes[axis].end(), index) -
                                    axes[axis].begin());
  }
  // Behind the last index of a frame that does not sort behind the key.
  std::size_t sorted_place(const ModelFrame& frame) const {
    const std::size_t axis = rank - 1;
    std::size_t place = 0;
    for (const ModelFrame& f : frames) {
      if (&f == &frame || f.axis != axis || f.key() > frame.key()) continue;
      for (const Index i : f.covers[axis]) place = std::max(place, place_of(axis, i) + 1);
    }
    return place;
  }
  void put_at(std::size_t axis, std::size_t place, const std::vector<Index>& indexes) {
    axes[axis].insert(axes[axis].begin() + static_cast<std::ptrdiff_t>(place), indexes.begin(),
                      indexes.end());
  }
  void move_to(ModelFrame& frame, std::size_t place) {
    put_at(frame.axis, place, frame.covers[frame.axis]);
  }
  void lift(const ModelFrame& frame) {
    std::erase_if(axes[frame.axis], [&](Index i) {
      const auto& own = frame.covers[frame.axis];
      return std::find(own.begin(), own.end(), i) != own.end();
    });
  }
  void resort(ModelFrame& frame) {
    if (!sorted || frame.axis != rank - 1) return;
    lift(frame);
    move_to(frame, sorted_place(frame));
  }
  void sort_all() {
    std::vector<ModelFrame*> ordered;
    for (ModelFrame& f : frames)
      if (f.axis == rank - 1) ordered.push_back(&f);
    std::sort(ordered.begin(), ordered.end(), [](const ModelFrame* a, const ModelFrame* b) {
      return a->key() != b->key() ? a->key() < b->key() : a->serial < b->serial;
    });
    std::size_t place = 0;
    for (ModelFrame* f : ordered) {
      lift(*f);
      move_to(*f, place);
      place += f->covers[f->axis].size();
    }
  }

  std::vector<Index> fresh(std::uint64_t count) {
    std::vector<Index> indexes(count);
    std::iota(indexes.begin(), indexes.end(), next_index);
    next_index += static_cast<Index>(count);
    return indexes;
  }
  // The first `extent` indexes of an axis; more are made behind the last one.
  std::vector<Index> first(std::size_t axis, std::uint64_t extent) {
    std::vector<Index> indexes = shown(axis);
    std::size_t end = indexes.empty() ? 0 : place_of(axis, indexes.back()) + 1;
    for (; indexes.size() < extent && end < axes[axis].size(); ++end)
      indexes.push_back(axes[axis][end]);
    for (const Index i : fresh(extent > indexes.size() ? extent - indexes.size() : 0)) {
      indexes.push_back(i);
      axes[axis].push_back(i);
    }
    indexes.resize(extent);
    return indexes;
  }
  // `replaced`: whose place it takes; `older`: who had its name until now, and has another already.
  // It covers the indexes as they were, before the older one moves to where its new name sorts.
  void add(ModelFrame frame, const Shape& extent, Side side, std::uint64_t at,
           const std::string& replaced, const std::string& older) {
    frame.serial = next_serial++;
    for (std::size_t a = 0; a < rank; ++a)
      frame.covers.push_back(a == frame.axis ? fresh(extent[a]) : first(a, extent[a]));
    if (!older.empty()) resort(*find(older));
    const std::size_t axis = frame.axis;
    std::size_t place = side == Side::append ? axes[axis].size() : 0;
    if (side == Side::insert) {
      const std::vector<Index> indexes = shown(axis);
      place = at == indexes.size() ? axes[axis].size() : place_of(axis, indexes[at]);
    }
    if (sorted && axis == rank - 1)
      place = sorted_place(frame);
    else if (const ModelFrame* old = replaced.empty() ? nullptr : find(replaced))
      place = place_of(axis, old->covers[axis].front());
    put_at(axis, place, frame.covers[axis]);
    if (!replaced.empty())
      std::erase_if(frames, [&](const ModelFrame& f) { return f.name() == replaced; });
    frames.push_back(std::move(frame));
    clean();
  }

  // All elements and the mask, axis 0 fastest.
  std::pair<Bytes, Bytes> array() const {
    const Shape shape = this->shape();
    const std::size_t size = size_of(type);
    const std::uint64_t count = *checked_product({shape.begin(), shape.size()});
    Bytes elements(count * size);
    Bytes mask(count);
    fill(elements.data(), count, default_pad(type), type);
    std::vector<std::vector<std::ptrdiff_t>> logical(rank);  // of each index, -1: none
    for (std::size_t a = 0; a < rank; ++a) {
      logical[a].assign(static_cast<std::size_t>(next_index), -1);
      std::ptrdiff_t n = 0;
      for (const Index i : shown(a)) logical[a][static_cast<std::size_t>(i)] = n++;
    }
    for (const ModelFrame& f : frames) {
      if (!f.live) continue;
      std::vector<std::size_t> at(rank, 0);
      for (std::size_t e = 0; e < f.elements.size() / size; ++e) {
        std::uint64_t target = 0;
        for (std::size_t a = rank; a-- > 0;)
          target =
              target * shape[a] +
              static_cast<std::uint64_t>(logical[a][static_cast<std::size_t>(f.covers[a][at[a]])]);
        EXPECT_EQ(mask[target], std::byte{0}) << "two frames have one element";
        mask[target] = std::byte{1};
        std::copy_n(f.elements.data() + e * size, size, elements.data() + target * size);
        for (std::size_t a = 0; a < rank && ++at[a] == f.covers[a].size(); ++a) at[a] = 0;
      }
    }
    return {std::move(elements), std::move(mask)};
  }
};

class History {
 public:
  explicit History(std::uint64_t seed) : random_(seed) { mount(); }

  void run(std::uint64_t steps) {
    for (std::uint64_t i = 0; i < steps && !::testing::Test::HasFailure(); ++i) {
      SCOPED_TRACE("step " + std::to_string(i));
      step();
      SCOPED_TRACE(told_);
      check();
    }
  }

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

  void mount() {
    const bool is_new = store_ == nullptr;
    cube_.reset();
    store_.reset();
    StoreOptions options;
    options.sync_interval = std::chrono::milliseconds(20);
    auto store = Store::open(directory_.path() + "/store", options);
    ASSERT_TRUE(store.ok()) << store.error().sentence;
    store_ = std::move(store).value();
    store_->start();
    auto cube = is_new ? store_->create("c") : store_->find("c");
    ASSERT_TRUE(cube.ok()) << cube.error().sentence;
    cube_ = *cube;
  }

  static void expect_ok(const Status& status, const char* what) {
    EXPECT_TRUE(status.ok()) << what << ": " << status.error().sentence;
  }

  ModelFrame* some_frame(bool live) {
    std::vector<ModelFrame*> found;
    for (ModelFrame& f : model_.frames)
      if (f.live == live) found.push_back(&f);
    return found.empty() ? nullptr : found[below(found.size())];
  }

  std::uint64_t elements_held() const {
    std::uint64_t count = 0;
    for (const ModelFrame& f : model_.frames) count += f.elements.size() / size_of(model_.type);
    return count;
  }

  void step() {
    told_ = "nothing";
    const std::uint64_t elements =
        *checked_product({model_.shape().begin(), model_.shape().size()});
    const bool crowded =
        model_.frames.size() > 24 || elements > 6000 || elements_held() > 6000 || one_in(400);
    if (crowded) wiping_ = !one_in(3);
    if (wiping_) {
      wiping_ = !model_.frames.empty() && !one_in(60);
      if (ModelFrame* frame = some_frame(false)) return discard(*frame);
      if (ModelFrame* frame = some_frame(true)) return remove(*frame);
      return;
    }
    const std::uint64_t dice = below(100);
    if (dice < 50) return add();
    if (dice < 64) {
      if (ModelFrame* frame = some_frame(true)) remove(*frame);
    } else if (dice < 76) {
      if (ModelFrame* frame = some_frame(false)) restore(*frame);
    } else if (dice < 82) {
      if (ModelFrame* frame = some_frame(false)) discard(*frame);
    } else if (dice < 90) {
      if (!model_.frames.empty()) rename(model_.frames[below(model_.frames.size())]);
    } else if (dice < 94) {
      if (model_.defined) set_order(!model_.sorted);
    } else if (dice < 97) {
      mount();
    }
  }

  void set_order(bool by_name) {
    told_ = by_name ? "order by name" : "order of arrival";
    expect_ok(cube_->set_property("order", by_name ? "name" : "arrival"), "order");
    model_.sorted = by_name;
    if (by_name) model_.sort_all();
  }

  void define() {
    set_order(false);
    model_.defined = true;
    model_.rank = 1 + below(max_rank);
    model_.type = all_dtypes[below(std::size(all_dtypes))];
    model_.axes.assign(model_.rank, {});
    std::string letters;
    for (std::size_t a = 0; a < model_.rank; ++a) letters += "abcdefgh"[a];
    expect_ok(cube_->set_property("axes", letters), "axes");
  }

  Shape some_extent(std::size_t axis) {
    const Shape shape = model_.shape();
    Shape extent;
    for (std::size_t a = 0; a < model_.rank; ++a) {
      const std::uint64_t most = model_.rank < 4 ? 8 : model_.rank < 6 ? 3 : 2;
      const bool like_the_cube = a != axis && shape[a] > 0 && !one_in(5);
      extent.push_back(like_the_cube ? shape[a] : 1 + below(most));
    }
    if (!one_in(3)) extent[axis] = 1;
    return extent;
  }

  void add() {
    const bool defines = !model_.defined;
    if (defines) define();
    ModelFrame frame;
    frame.axis = one_in(3) ? below(model_.rank) : model_.rank - 1;
    const bool by_order = model_.sorted && frame.axis == model_.rank - 1;
    IngestRequest request;
    request.axis = frame.axis;
    request.side = by_order ? Side::append : static_cast<Side>(below(3));
    const Shape extent = some_extent(frame.axis);
    if (request.side == Side::insert) {
      const std::uint64_t here = model_.shape()[frame.axis];
      request.at = below(here + 1);
    }
    frame.number = static_cast<int>(below(one_in(4) ? 12 : 100000));
    frame.elements =
        random_elements(random_, model_.type, *checked_product({extent.begin(), extent.size()}));

    // What is there under that name.
    const std::string name = frame.name();
    std::string replaced;
    std::string older;
    const bool by_rename = one_in(2);
    const FormatId format = one_in(2) ? FormatId::npy : FormatId::fits;
    frame.file = frame_file(format, model_.type, extent, frame.elements);
    const std::string& file = frame.file;
    ModelFrame* const old = model_.find(name);
    const bool is_same = old != nullptr && old->file == file;  // no other frame then
    if (old != nullptr && !is_same) {
      if (by_rename) {
        replaced = name;
        if (frame.axis != old->axis) {  // it takes the older one's place, on its axis
          frame.axis = old->axis;
          if (request.side == Side::insert) request.side = Side::append;
          if (model_.sorted && frame.axis == model_.rank - 1) request.side = Side::append;
        }
      } else {
        for (old->older = 1; count(old->name()) > 1;) ++old->older;
        older = old->name();
      }
    }
    request.name = by_rename ? ".incoming" : name;
    const auto ingest = cube_->begin_ingest(request);
    ASSERT_TRUE(ingest.ok()) << ingest.error().sentence;
    const std::size_t cut = below(file.size());
    expect_ok((*ingest)->write(0, as_bytes(std::string_view(file).substr(0, cut))), "write");
    expect_ok((*ingest)->write(cut, as_bytes(std::string_view(file).substr(cut))), "write");
    if (by_rename) expect_ok((*ingest)->set_name(name, true), "name");
    const auto id = (*ingest)->commit();
    ASSERT_TRUE(id.ok()) << id.error().sentence;
    told_ = "add " + name + (by_rename ? " by rename" : "") + " along " +
            std::to_string(frame.axis) + " side " + std::to_string(static_cast<int>(request.side)) +
            " at " + std::to_string(request.at) + " extent " + to_string(extent) + " replaces '" +
            replaced + "'";
    if (is_same) return;
    model_.add(std::move(frame), extent, request.side, request.at, replaced, older);
  }

  std::size_t count(const std::string& name) const {
    return static_cast<std::size_t>(
        std::count_if(model_.frames.begin(), model_.frames.end(),
                      [&](const ModelFrame& f) { return f.name() == name; }));
  }

  void remove(ModelFrame& frame) {
    told_ = "remove " + frame.name();
    expect_ok(cube_->remove_frame(frame.name(), frame.name()), "remove");
    frame.live = false;
  }
  void restore(ModelFrame& frame) {
    told_ = "restore " + frame.name();
    const std::string old_name = frame.name();
    if (one_in(3)) {
      const int number = frame.number;
      frame.number = static_cast<int>(100000 + below(100000));
      if (count(frame.name()) > 1) frame.number = number;
    }
    expect_ok(cube_->restore_frame(old_name, frame.name()), "restore");
    frame.live = true;
    if (frame.name() != old_name) model_.resort(frame);
  }
  void discard(const ModelFrame& frame) {
    told_ = "discard " + frame.name();
    const std::string name = frame.name();
    expect_ok(cube_->discard_frame(name), "discard");
    std::erase_if(model_.frames, [&](const ModelFrame& f) { return f.name() == name; });
    model_.clean();
  }
  void rename(ModelFrame& frame) {
    told_ = "rename " + frame.name();
    const std::string from = frame.name();
    ModelFrame* onto = one_in(2) ? some_frame(one_in(2)) : nullptr;
    if (onto == &frame) onto = nullptr;
    const int number = onto ? onto->number : static_cast<int>(200000 + below(100000));
    const int older = onto ? onto->older : 0;
    ModelFrame renamed = frame;
    renamed.number = number;
    renamed.older = older;
    if (!onto && count(renamed.name()) > 0) return;
    told_ += " to " + renamed.name() + (onto ? onto->live ? ", live" : ", removed" : "") +
             (model_.sorted ? ", sorted" : "") + " along " + std::to_string(frame.axis);
    const Status status = cube_->rename_frame(from, renamed.name());
    if (onto && (!frame.live || frame.axis != onto->axis)) {
      EXPECT_FALSE(status.ok());
      return;
    }
    expect_ok(status, "rename");
    if (onto) {
      if (!(model_.sorted && frame.axis == model_.rank - 1)) {
        model_.lift(frame);
        model_.move_to(frame, model_.place_of(frame.axis, onto->covers[frame.axis].front()));
      }
    }
    frame.number = number;
    frame.older = older;
    model_.resort(frame);
    if (onto) model_.frames.erase(model_.frames.begin() + (onto - model_.frames.data()));
    model_.clean();
  }

  void check() {
    const Pinned pinned = cube_->pin();
    ASSERT_EQ(pinned->definition.defined, model_.defined);
    ASSERT_EQ(to_string(pinned->shape()), to_string(model_.shape()));
    if (!model_.defined) return layers_.clear();
    check_layers(pinned);
    for (const bool live : {true, false}) {
      std::vector<std::string> names;
      for (const FrameId id : pinned->frames_in_order(!live))
        names.push_back(cube_->frame_name(*pinned->frames.find(id)));
      const std::size_t last = model_.rank - 1;
      std::vector<const ModelFrame*> expected;
      for (const ModelFrame& f : model_.frames)
        if (f.live == live) expected.push_back(&f);
      std::sort(expected.begin(), expected.end(), [&](const ModelFrame* a, const ModelFrame* b) {
        const auto place = [&](const ModelFrame* f) {
          return std::tuple(f->axis != last, f->axis,
                            model_.place_of(f->axis, f->covers[f->axis].front()));
        };
        return place(a) < place(b);
      });
      std::vector<std::string> expected_names;
      for (const ModelFrame* f : expected) expected_names.push_back(f->name());
      ASSERT_EQ(names, expected_names);
    }
    const auto whole = View::whole(pinned->axes);
    if (!whole.ok()) return;
    const auto [elements, mask] = model_.array();
    ASSERT_TRUE(read_all(*cube_, *whole) == elements);
    Bytes given(mask.size());
    gather_mask(*whole, pinned->boxes, {0, given.size()}, given.data());
    ASSERT_TRUE(given == mask);
    check_view(pinned, elements);
    if (ModelFrame* frame = some_frame(one_in(2))) check_frame(*frame);
  }

  // What is stored stays where it is, as it is, until its frame is gone.
  void check_layers(const Pinned& pinned) {
    std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint64_t> now;
    pinned->boxes.for_all([&](const Box& box) {
      for (std::uint64_t slot = 0; slot < box.slots(); ++slot) {
        if (((box.written | box.kept) >> slot & 1) == 0) continue;
        std::uint64_t sum = 0;
        for_slot_ranges(box, slot, 1, [&](std::uint64_t offset, std::uint64_t length) {
          sum = checksum({pinned.mapping.get() + offset, length}, sum + offset);
        });
        now[{box.id, slot}] = sum;
        if (const auto before = layers_.find({box.id, slot}); before != layers_.end()) {
          EXPECT_EQ(before->second, sum) << "box " << box.id << ", slot " << slot;
        }
      }
    });
    layers_ = std::move(now);
  }

  // A random cut-out in a random order of axes.
  void check_view(const Pinned& pinned, const Bytes& elements) {
    const Shape shape = model_.shape();
    std::vector<std::size_t> order(model_.rank);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::shuffle(order.begin(), order.end(), random_);
    order.resize(1 + below(order.size()));
    PerAxis<ViewAxis> spanned;
    for (const std::size_t a : order) {
      const std::uint64_t begin = below(shape[a]);
      spanned.push_back({a, {begin, begin + 1 + below(shape[a] - begin)}});
    }
    Shape fixed;
    for (const std::uint64_t e : shape) fixed.push_back(below(e));
    const auto view = View::make(pinned->axes, spanned, fixed);
    ASSERT_TRUE(view.ok()) << view.error().sentence;
    const Bytes got = read_all(*cube_, *view);
    const std::size_t size = size_of(model_.type);
    Shape index(order.size());
    for (std::uint64_t i = 0; i < view->element_count(); ++i) {
      Shape at = fixed;
      for (std::size_t d = 0; d < order.size(); ++d)
        at[spanned[d].axis] = spanned[d].range.begin + index[d];
      std::uint64_t source = 0;
      for (std::size_t a = model_.rank; a-- > 0;) source = source * shape[a] + at[a];
      ASSERT_TRUE(std::equal(got.data() + i * size, got.data() + (i + 1) * size,
                             elements.data() + source * size))
          << i;
      for (std::size_t d = 0; d < index.size() && ++index[d] == spanned[d].range.length(); ++d)
        index[d] = 0;
    }
  }

  // What the frame's own file shows, removed or not.
  void check_frame(const ModelFrame& frame) {
    const auto id =
        frame.live ? cube_->find_frame(frame.name()) : cube_->find_removed(frame.name());
    ASSERT_TRUE(id) << frame.name();
    Pinned pinned = cube_->pin();
    const FrameRow row = *pinned->frames.find(*id);
    if (!frame.live) {
      auto shown = cube_->show_removed(pinned, row);
      ASSERT_TRUE(shown.ok()) << shown.error().sentence;
      pinned = *shown;
    }
    Bytes bytes(frame.elements.size());
    const auto view = cube_->frame_view(row);
    ASSERT_TRUE(view.ok()) << view.error().sentence;
    expect_ok(
        cube_->read(pinned, *view, {0, view->element_count()}, bytes.data(), native(model_.type)),
        "read");
    ASSERT_TRUE(bytes == frame.elements);
  }

  TemporaryDirectory directory_;
  std::mt19937_64 random_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Cube> cube_;
  Model model_;
  bool wiping_ = false;
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint64_t> layers_;  // sums by box and slot
  std::string told_;  // what the last step did
};

TEST(RandomHistory, equals_a_plain_array) {
  const std::uint64_t seeds = from_environment("ACCRETE_SEEDS", 4);
  const std::uint64_t steps = from_environment("ACCRETE_STEPS", 1200);
  for (std::uint64_t i = 0; i < seeds && !HasFailure(); ++i) {
    const std::uint64_t seed = testing::seed() + i;
    SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(seed));
    History(seed).run(steps);
  }
}

}  // namespace
}  // namespace accrete
