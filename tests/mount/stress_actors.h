// The processes of coherence-stress: one that makes frames come and go, and those that poke and
// read.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "stress_view.h"

namespace stress {

class Actor {
 public:
  Actor(const Options& options, const Board& board, unsigned number)
      : options_(options),
        board_(board),
        coding_(options.element_bytes, options.is_signed),
        number_(number),
        self_(board->processes[number]),
        random_(options.seed * 1000 + number) {}

 protected:
  // Publishes what is done next. Also the sign of life that the watchdog looks for.
  __attribute__((format(printf, 2, 3))) void doing(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(self_.doing.data(), self_.doing.size(), format, arguments);
    va_end(arguments);
    ++self_.steps;
  }

  void count(Count what, std::uint64_t more = 1) { self_.counters[what] += more; }

  // Tells of a fault. The first few end the run.
  void report(Count kind, const std::string& what) {
    count(kind);
    if (self_.counters[kind] <= 5) {
      const std::string line = text("process %u: %s: ", number_, count_names[kind]) + what + "\n";
      (void)!write(STDERR_FILENO, line.data(), line.size());
    }
    if (board_.faults() > 20) board_->stop = true;
  }
  void report_errno(const std::string& what, int error) {
    report(errors, what + ": " + std::strerror(error));
  }

  // Below `limit`.
  std::uint32_t below(std::uint64_t limit) {
    return static_cast<std::uint32_t>(random_() % std::max<std::uint64_t>(limit, 1));
  }
  bool one_in(unsigned n) { return below(n) == 0; }

  const Options& options_;
  const Board& board_;
  const Coding coding_;
  const unsigned number_;
  Process& self_;
  std::mt19937_64 random_;
};

// Makes frames come and go.
class Grower : public Actor {
 public:
  using Actor::Actor;

  void start() {
    for (unsigned i = 0; i < options_.first_frames; ++i) add("append", std::nullopt);
  }

  // One ordinary file of the first frames.
  void start_plain() {
    Bytes content;
    std::vector<std::uint16_t> order;
    for (unsigned i = 0; i < options_.first_frames; ++i) {
      const unsigned frame = ++board_->born;
      board_.frame(frame).rows = options_.height;
      begin(frame);
      append_elements(content, frame, Format::raw);
      acknowledge(frame);
      order.push_back(static_cast<std::uint16_t>(frame));
    }
    put_file(plain_names[0], content);
    for (std::size_t i = 1; i < plain_names.size(); ++i)
      if (link(at(plain_names[0]).c_str(), at(plain_names[i]).c_str()) != 0)
        report_errno(plain_names[i], errno);
    board_.set_order(order);
    board_->generation = 2;
  }

  void run() {
    const auto begin = Clock::now();
    while (!board_->stop) {
      doing("a pause between growths");
      std::this_thread::sleep_for(std::chrono::milliseconds(5 + below(60)));
      const std::chrono::duration<double> passed = Clock::now() - begin;
      const double allowed =
          options_.first_frames +
          (options_.most_frames - options_.first_frames) * passed / (options_.seconds * 1s);
      // Where there is such data, nothing is read straight from the store any more.
      if (passed > options_.seconds / 2 * 1s) board_->pad_pokes = true;
      if (board_->born < options_.most_frames && board_->born < allowed && one_in(2)) {
        if (one_in(2))
          add("append", std::nullopt);
        else
          add("", below(board_->length + 1));
      } else if (!removed_.empty() && (one_in(2) || removed_.size() > board_->length)) {
        restore(below(removed_.size()));
      } else {
        remove();
      }
    }
  }

  void restore_all() {
    while (!removed_.empty()) restore(removed_.size() - 1);
  }

  // What is in removed/ now, by what all know.
  void find_removed() {
    for (unsigned frame = 1; frame <= board_->born; ++frame)
      if (board_.frame(frame).state == State::removed) removed_.push_back(frame);
  }

 private:
  // Another frame at the end, or at an index. Some have half the rows: pad is beyond.
  void add(const std::string& door, std::optional<std::uint32_t> index) {
    const unsigned frame = board_->born + 1;
    const bool is_short = frame > options_.first_frames && one_in(5);
    board_.frame(frame).rows = is_short ? options_.height / 2 : options_.height;
    begin(frame);
    board_->born = frame;
    Bytes content = head(frame);
    append_elements(content, frame, options_.fits_frames ? Format::fits : Format::npy);
    if (options_.fits_frames) content.resize((content.size() + 2879) / 2880 * 2880);
    const std::string directory = index ? text("insert/z/%u", *index) : door;
    doing("copying frame %u into %s", frame, directory.c_str());
    const std::vector<std::uint16_t> before = board_.structure().order;
    put_file(directory + "/" + frame_name(options_, frame), content, [&](int file) {
      change([&] {
        if (close(file) != 0) return report_errno("close() of a new frame", errno);
        acknowledge(frame);
      });
    });
    const std::vector<std::uint16_t> after = board_.structure().order;
    const std::size_t place = index.value_or(static_cast<std::uint32_t>(before.size()));
    if (place >= after.size() || after[place] != frame || without(after, frame) != before)
      report(foreign, text("frame %u is not at the index %zu", frame, place));
    count(index ? inserted : appended);
  }

  void remove() {
    const unsigned frame = board_.structure().order[below(board_->length)];
    if (frame == 1) return;  // is always there, so that the cube keeps its shape
    withdraw(frame);
    const std::vector<std::uint16_t> before = board_.structure().order;
    doing("removing frame %u", frame);
    change([&] {
      if (unlink(path("frames", frame).c_str()) != 0) report_errno("rm of a frame", errno);
    });
    board_.frame(frame).state = State::removed;
    removed_.push_back(frame);
    if (without(before, frame) != board_.structure().order)
      report(foreign, text("more has changed than the removal of frame %u", frame));
    count(removed);
  }

  void restore(std::size_t which) {
    const unsigned frame = removed_[which];
    removed_.erase(removed_.begin() + static_cast<std::ptrdiff_t>(which));
    withdraw(frame);
    const std::vector<std::uint16_t> before = board_.structure().order;
    doing("restoring frame %u", frame);
    change([&] {
      if (rename(path("removed", frame).c_str(), path("frames", frame).c_str()) != 0)
        report_errno("mv of a removed frame", errno);
    });
    board_.frame(frame).state = State::live;
    if (before != without(board_.structure().order, frame))
      report(foreign, text("more has changed than the restoration of frame %u", frame));
    count(restored);
  }

  // From now on nobody begins to store into its mappings: the error that a page would come back
  // with reaches whoever syncs that file next.
  void withdraw(unsigned frame) {
    board_.frame(frame).state = State::changing;
    ++board_.frame(frame).changes;
    doing("waiting until nobody stores into frame %u", frame);
    while (board_.frame(frame).holders != 0 && !board_->stop) std::this_thread::yield();
  }

  template <class Body>
  void change(const Body& body) {
    ++board_->generation;
    body();
    board_.set_order(read_order());
    ++board_->generation;
  }

  void begin(unsigned frame) {
    for (unsigned i = 0; i < board_.width * board_.frame(frame).rows; ++i) {
      Element& element = board_.element(board_.id(frame, 0, 0) + i);
      element.writer = static_cast<std::uint8_t>(number_);
      element.started = 1;
    }
  }
  void acknowledge(unsigned frame) {
    for (unsigned i = 0; i < board_.width * board_.frame(frame).rows; ++i)
      board_.element(board_.id(frame, 0, 0) + i).acknowledged = 1;
    board_.frame(frame).state = State::live;
  }

  void append_elements(Bytes& content, unsigned frame, Format format) {
    std::size_t at = content.size();
    const std::size_t elements = std::size_t{board_.width} * board_.frame(frame).rows;
    content.resize(at + elements * coding_.bytes());
    for (std::uint32_t i = 0; i < elements; ++i, at += coding_.bytes()) {
      const std::uint64_t value = coding_.pack({board_.id(frame, 0, 0) + i, 1, number_});
      coding_.put(content.data() + at, coding_.to_file(value, format));
    }
  }

  Bytes head(unsigned frame) {
    const unsigned rows = board_.frame(frame).rows;
    std::string header;
    if (options_.fits_frames) {
      const auto card = [&](const char* keyword, const std::string& value) {
        header += text("%-8s= %20s%50s", keyword, value.c_str(), "");
      };
      card("SIMPLE", "T");
      card("BITPIX", std::to_string(8 * coding_.bytes()));
      card("NAXIS", "2");
      card("NAXIS1", std::to_string(board_.width));
      card("NAXIS2", std::to_string(rows));
      if (coding_.fits_zero() != nullptr) card("BZERO", coding_.fits_zero());
      header += "END";
      header.resize(2880, ' ');
    } else {
      header = std::string("\x93NUMPY\x01\0v\0", 10) +
               text("{'descr': '%s', 'fortran_order': False, 'shape': (%u, %u), }",
                    coding_.npy_type(), rows, board_.width);
      header.resize(127, ' ');
      header += '\n';
    }
    return {header.begin(), header.end()};
  }

  void put_file(
      const std::string& name, const Bytes& content,
      const std::function<void(int)>& finish = [](int file) { close(file); }) {
    const int file = open(at(name).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0) return report_errno("creating " + name, errno);
    for (std::size_t at = 0; at < content.size();) {
      const std::size_t some = std::min<std::size_t>(content.size() - at, 1 + below(16384));
      const ssize_t put = write(file, content.data() + at, some);
      if (put <= 0) {
        report_errno("writing " + name, errno);
        break;
      }
      at += static_cast<std::size_t>(put);
    }
    finish(file);
  }

  // As meta/frames has it.
  std::vector<std::uint16_t> read_order() {
    std::ifstream table(at("meta/frames"));
    const auto cells = [](const std::string& line) {
      std::vector<std::string> found;
      std::istringstream stream(line);
      for (std::string cell; std::getline(stream, cell, '\t');) found.push_back(cell);
      return found;
    };
    std::string line;
    std::getline(table, line);
    const std::vector<std::string> titles = cells(line);
    const auto name = std::find(titles.begin(), titles.end(), "name") - titles.begin();
    const auto index = std::find(titles.begin(), titles.end(), "index") - titles.begin();
    std::vector<std::uint16_t> order;
    while (std::getline(table, line)) {
      const std::vector<std::string> row = cells(line);
      const std::size_t z = std::stoul(row.at(static_cast<std::size_t>(index)));
      if (order.size() <= z) order.resize(z + 1);
      order[z] =
          static_cast<std::uint16_t>(std::stoul(row.at(static_cast<std::size_t>(name)).substr(1)));
    }
    return order;
  }

  static std::vector<std::uint16_t> without(std::vector<std::uint16_t> order, unsigned frame) {
    std::erase(order, frame);
    return order;
  }
  std::string at(const std::string& name) { return options_.root + "/" + name; }
  std::string path(const char* directory, unsigned frame) {
    return at(directory) + "/" + frame_name(options_, frame);
  }

  std::vector<unsigned> removed_;
};

// Pokes and reads.
class Worker : public Actor {
 public:
  using Actor::Actor;

  void run() {
    while (!board_->stop) {
      const bool fresh = views_.size() < most_views || one_in(4);
      const std::uint32_t target = choose_target();
      if (!fresh) {
        std::unique_ptr<View>& view = views_[below(views_.size())];
        act(*view, target, false);
        if (view->fd < 0 && view->map == nullptr)
          view = std::move(views_.back()), views_.pop_back();
        continue;
      }
      std::unique_ptr<View> view = open(random_spec(target), random_access(), structure_);
      if (view == nullptr) continue;
      act(*view, target, true);
      keep(std::move(view));
    }
    for (const std::unique_ptr<View>& view : views_) put_away(*view);
  }

  // Whether every kind of view has the last version of every element.
  void verify() {
    final_ = true;
    if (options_.plain) {
      for (const char* name : plain_names) verify(plain_spec(name));
      return;
    }
    structure_ = board_.structure();
    const auto depth = static_cast<std::uint32_t>(structure_.order.size());
    verify(spec_of("xyz", {}, Format::raw));
    verify(spec_of("xyz", {}, Format::txt));
    for (const Format format : {Format::raw, Format::npy, Format::fits}) {
      verify(spec_of("xyz", {}, format));
      for (const char* axes : {"xzy", "yxz", "yzx", "zxy", "zyx"})
        verify(spec_of(axes, {}, format));
      for (const char* axes : {"xy", "yx", "xz", "zx", "yz", "zy"}) {
        const unsigned fixed = axes[0] + axes[1] == 'x' + 'y'   ? 2
                               : axes[0] + axes[1] == 'x' + 'z' ? 1
                                                                : 0;
        const std::array<std::uint32_t, 3> extents{board_.width, board_.height, depth};
        for (std::uint32_t i = 0; i < extents[fixed]; ++i) {
          std::array<Range, 3> ranges;
          ranges[fixed] = {i, i + 1};
          verify(spec_of(axes, ranges, format));
        }
      }
    }
    for (int i = 0; i < 300; ++i) {
      const std::uint32_t x = below(board_.width), y = below(board_.height), z = below(depth);
      const auto format = Format{below(formats)};
      verify(spec_of("x", {Range{}, {y, y + 1}, {z, z + 1}}, format));
      verify(spec_of("y", {Range{x, x + 1}, {}, {z, z + 1}}, format));
      verify(spec_of("z", {Range{x, x + 1}, {y, y + 1}, {}}, format));
    }
    for (const std::uint16_t frame : structure_.order) verify(frame_spec(frame));
  }

  // The cube's elements, for whoever compares them after the end of the mount.
  void save() {
    std::ifstream cube(options_.root + "/cube.raw", std::ios::binary);
    std::ofstream(options_.save, std::ios::binary) << cube.rdbuf();
  }

 private:
  static constexpr std::size_t most_views = 12;
  static constexpr std::uint32_t whole = 8192;  // most elements of a read

  // What a reader knows of an element before it reads.
  struct Expected {
    std::uint16_t frame;  // 0: nothing
    std::uint32_t acknowledged;
  };
  // An element that is this process's to poke.
  struct Claim {
    Element* element;
    std::uint32_t id;
    unsigned frame;
    std::uint32_t changes;  // of the frame, before
  };

  // ---- Choices ----

  // An element near one that was poked lately, or any.
  std::uint32_t choose_target() {
    std::uint32_t id = board_->ring[below(ring_size)];
    if (id == 0 || one_in(3))
      id = board_.id(1 + below(board_->born), below(options_.width), below(options_.height));
    if (one_in(3)) return id;
    const std::uint32_t x = std::min(board_.x_of(id) / 8 * 8 + below(8), options_.width - 1);
    return board_.id(board_.frame_of(id), x, board_.y_of(id));
  }

  Access random_access() {
    if (one_in(2)) return one_in(2) ? Access::writing : Access::writable;
    return one_in(3) ? Access::descriptor : one_in(3) ? Access::private_mapping : Access::shared;
  }

  Range around(std::uint32_t at, std::uint32_t extent) {
    const std::uint32_t begin = at - std::min(at, below(20));
    return {begin, one_in(3) ? to_the_end : std::min(at + 1 + below(20), extent)};
  }

  static Spec spec_of(const std::string& axes, const std::array<Range, 3>& ranges, Format format) {
    Spec spec{"", axes, ranges, format, 0};
    name_view(spec);
    return spec;
  }
  Spec frame_spec(unsigned frame) {
    const bool is_removed = board_.frame(frame).state == State::removed;
    return {std::string(is_removed ? "removed/" : "frames/") + frame_name(options_, frame),
            "xy",
            {Range{}, {}, {0, 1}},
            options_.fits_frames ? Format::fits : Format::npy,
            frame};
  }
  static Spec plain_spec(const char* name) { return {name, "xyz", {}, Format::raw, 0}; }

  // A view that has the element if its frame is in the cube, as it was last seen (`structure_`).
  Spec random_spec(std::uint32_t target) {
    structure_ = board_.structure();
    if (options_.plain) return plain_spec(plain_names[below(plain_names.size())]);
    const auto& order = structure_.order;
    const unsigned frame = board_.frame_of(target);
    if (one_in(8)) return frame_spec(frame);
    const auto found = std::find(order.begin(), order.end(), frame);
    const auto depth = static_cast<std::uint32_t>(order.size());
    const std::array<std::uint32_t, 3> extents{options_.width, options_.height, depth};
    const std::array<std::uint32_t, 3> at{
        board_.x_of(target), board_.y_of(target),
        found == order.end() ? below(depth) : static_cast<std::uint32_t>(found - order.begin())};
    std::string axes = "xyz";
    std::shuffle(axes.begin(), axes.end(), random_);
    const std::uint32_t rank = std::array{1U, 2U, 2U, 2U, 2U, 3U}[below(6)];
    axes.resize(rank);
    if (one_in(8)) axes = "xyz";  // most often all of it
    std::array<Range, 3> ranges;
    const bool is_cut = axes.size() == 3 ? axes != "xyz" : one_in(4);
    for (unsigned axis = 0; axis < 3; ++axis) {
      if (axes.find("xyz"[axis]) == axes.npos)
        ranges[axis] = {at[axis], at[axis] + 1};
      else if (is_cut && one_in(2))
        ranges[axis] = around(at[axis], extents[axis]);
    }
    return spec_of(axes, ranges, Format{below(formats)});
  }

  // ---- Opening and closing ----

  std::unique_ptr<View> open(Spec spec, Access access, const Structure& structure) {
    if (spec.path.starts_with("removed/")) access = Access::descriptor;
    // Text has no elements that one access could load or store.
    if (spec.format == Format::txt && access != Access::writing) access = Access::descriptor;
    doing("open %s for %s", spec.path.c_str(), access_names[static_cast<unsigned>(access)]);
    auto view = std::make_unique<View>(std::move(spec), access, structure);
    count(opens);
    const int error = view->open(options_, board_, coding_);
    if (error == 0) {
      // A mapping outlives its descriptor.
      if (view->map != nullptr && !view->can_write() && one_in(2)) {
        ::close(view->fd);
        view->fd = -1;
      }
      return view;
    }
    if (error == ENODEV && options_.cached && access == Access::writable) {
      count(mappings_refused);
    } else if ((error == ENOENT || error == ESTALE) && !is_settled(*view)) {
      count(opens_failed);
    } else {
      report_errno(text("%s, of %s for %s", view->failed, view->spec.path.c_str(),
                        access_names[static_cast<unsigned>(access)]),
                   error);
    }
    return nullptr;
  }

  // Whether what its name means has not changed since it was chosen.
  bool is_settled(const View& view) {
    if (view.spec.frame == 0) return board_.is_unchanged(view.structure);
    return board_.is_unchanged(view.structure) && board_.is_live(view.spec.frame);
  }

  void keep(std::unique_ptr<View> view) {
    if (view->fd < 0 && view->map == nullptr) return;
    if (views_.size() < most_views) return views_.push_back(std::move(view));
    if (one_in(3)) views_[below(views_.size())].swap(view);
    put_away(*view);
  }

  void put_away(View& view) {
    doing("close %s", view.spec.path.c_str());
    if (const int error = view.close()) report_errno("closing " + view.spec.path, error);
  }

  // ---- Reading ----

  void act(View& view, std::uint32_t target, bool fresh) {
    if (view.elements() == 0) return;
    const std::optional<std::uint64_t> found =
        view.find(board_.frame_of(target), board_.x_of(target), board_.y_of(target));
    std::uint64_t position = found.value_or(below(view.elements()));
    if (fresh && !found) {
      // Which frame is where is known by now only as it was said.
      std::swap(view.frames, view.guesses);
      position = view.find(board_.frame_of(target), board_.x_of(target), board_.y_of(target))
                     .value_or(position);
      std::swap(view.frames, view.guesses);
    }
    if (view.access == Access::writing && one_in(6) && write_over(view)) return;
    if (view.can_write() && one_in(2)) return poke(view, position);
    std::uint64_t length = one_in(3) ? 1 + below(64) : 1;
    if (one_in(20)) {
      position = 0;
      length = whole;
      count(read_whole);
    }
    count(fresh                                    ? read_fresh
          : view.map == nullptr                    ? read_open
          : view.access == Access::shared          ? read_shared
          : view.access == Access::private_mapping ? read_private
                                                   : read_writable);
    read(view, position, length);
  }

  // Reads elements and checks them.
  void read(View& view, std::uint64_t first, std::uint64_t length) {
    length = std::min(length, view.elements() - first);
    std::vector<Expected> before(length);
    for (std::uint64_t i = 0; i < length; ++i) before[i] = expect(view, first + i);
    std::vector<std::uint64_t> values(length);
    if (!fetch(view, first, values)) return;
    for (std::uint64_t i = 0; i < length; ++i)
      if (!is_in_two_pages(view, first + i) && !check(view, first + i, values[i], before[i]))
        return;
  }

  Expected expect(const View& view, std::uint64_t position) {
    const Place at = view.place(position);
    std::uint16_t frame = view.frames[at.layer];
    if (frame == 0) frame = view.guesses[at.layer];
    if (frame == 0) return {0, 0};
    return {frame, board_.element(board_.id(frame, at.x, at.y)).acknowledged};
  }

  // The kernel fills and reads its pages one by one, so that text across two may be of two times.
  bool is_in_two_pages(const View& view, std::uint64_t position) const {
    if (view.spec.format != Format::txt || !options_.cached) return false;
    const std::size_t width = coding_.width(Format::txt);
    return position * width / 4096 != (position * width + width - 1) / 4096;
  }

  bool fetch(View& view, std::uint64_t first, std::vector<std::uint64_t>& values) {
    const std::size_t width = coding_.width(view.spec.format);
    const std::size_t begin = view.head + first * width;
    if (view.map != nullptr && (view.fd < 0 || !one_in(8))) {
      doing("load %zu elements at byte %zu of %s", values.size(), begin, view.spec.path.c_str());
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = coding_.from_file(coding_.load(view.map + begin + i * width), view.spec.format);
      return true;
    }
    // Often a few bytes more, so that it begins and ends within elements.
    const std::size_t more = one_in(3) ? std::min<std::size_t>(begin, below(width)) : 0;
    Bytes bytes(more + values.size() * width);
    doing("pread %zu bytes at %zu of %s", bytes.size(), begin - more, view.spec.path.c_str());
    for (std::size_t got = 0; got < bytes.size();) {
      const ssize_t some = pread(view.fd, bytes.data() + got, bytes.size() - got,
                                 static_cast<off_t>(begin - more + got));
      if (some <= 0) {
        report_errno(self_.doing.data() + text(", at %zu", got), some < 0 ? errno : ENODATA);
        return false;
      }
      got += static_cast<std::size_t>(some);
    }
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = coding_.read(&bytes[more + i * width], view.spec.format);
    return true;
  }

  bool check(View& view, std::uint64_t position, std::uint64_t value, const Expected& before) {
    const Place at = view.place(position);
    const std::uint16_t known = view.frames[at.layer];
    const std::optional<Value> found = coding_.unpack(value);
    const unsigned frame = found ? board_.frame_of(found->element) : 0;
    const auto wrong = [&](Count kind, const std::string& what) {
      report(kind,
             describe(view, position, value) + "; " + what + "; " + look_again(view, position));
      return false;
    };
    if (value == 0) {  // pad, beyond the rows of a short frame
      const unsigned there = known != 0 ? known : before.frame;
      if (there != 0 && at.y >= board_.frame(there).rows) {
        const bool is_sure = known != 0 || board_.is_unchanged(view.structure);
        if (before.frame != there || before.acknowledged == 0 || !is_sure) return true;
        return wrong(final_ ? lost : stale, text("acknowledged were %u", before.acknowledged));
      }
      if (known == 0 && !board_.is_unchanged(view.structure)) return true;
      return wrong(foreign, text("frame %u should be there", there));
    }
    if (frame == 0 || frame > board_->born) return wrong(torn, "there is no such element");
    if (board_.x_of(found->element) != at.x || board_.y_of(found->element) != at.y)
      return wrong(foreign, "it has another place");
    if (known != 0 && known != frame) return wrong(foreign, text("frame %u was there", known));
    if (known == 0) {
      if (before.frame != frame) {
        if (board_.is_unchanged(view.structure))
          return wrong(foreign, text("frame %u is there", before.frame));
        count(moved);
      }
      view.frames[at.layer] = static_cast<std::uint16_t>(frame);
    }
    Element& element = board_.element(found->element);
    const std::uint32_t least = before.frame == frame ? before.acknowledged : 0;
    const std::uint32_t most = element.started;
    if (found->version < least || found->version == 0 || found->version > most)
      return wrong(found->version >= least ? torn
                   : final_                ? lost
                                           : stale,
                   text("acknowledged were %u, started are %u", least, most));
    // Whether a poke took place that was refused is settled by who looks first.
    if (final_) {
      element.acknowledged = found->version;
      element.started = found->version;
    }
    return true;
  }

  std::string describe(const View& view, std::uint64_t position, std::uint64_t value) {
    const Place at = view.place(position);
    const std::string where =
        text("%s by %s%s: x %u y %u layer %u, at byte %zu, has %#llx, ", view.spec.path.c_str(),
             access_names[static_cast<unsigned>(view.access)], view.fd < 0 ? " (closed)" : "", at.x,
             at.y, at.layer, view.head + position * coding_.width(view.spec.format),
             static_cast<unsigned long long>(value));
    if (value == 0) return where + "pad";
    const std::optional<Value> found = coding_.unpack(value);
    if (!found) return where + "which is no value";
    return where + text("version %u by process %u of frame %u x %u y %u", found->version,
                        found->writer, board_.frame_of(found->element), board_.x_of(found->element),
                        board_.y_of(found->element));
  }

  // What the element is a moment later, to tell what is late from what is lost.
  std::string look_again(View& view, std::uint64_t position) {
    const std::string was = self_.doing.data();
    std::this_thread::sleep_for(100ms);
    std::vector<std::uint64_t> values(1);
    std::string seen = "later it cannot be read";
    if (fetch(view, position, values)) {
      const std::optional<Value> found = coding_.unpack(values[0]);
      seen = found ? text("later it has version %u", found->version)
                   : text("later it has %#llx", static_cast<unsigned long long>(values[0]));
    }
    doing("%s", was.c_str());
    return seen;
  }

  // ---- Poking ----

  void poke(View& view, std::uint64_t position) {
    if (view.frames[view.place(position).layer] == 0) {
      read(view, position, 1);
      count(read_open);
    }
    const bool by_store = view.map != nullptr && !one_in(4);
    const std::uint32_t wanted = one_in(3) ? 2 + below(30) : 1;
    std::vector<Claim> claims;
    const bool may_be_pad = board_->pad_pokes && one_in(4);
    while (claims.size() < wanted && claim(view, position + claims.size(), claims, may_be_pad))
      continue;
    if (claims.empty()) return;
    for (const Claim& claim : claims)
      if (claim.element->started == 0) count(poke_pad);
    if (by_store) {
      if (hold(claims)) store(view, position, claims);
    } else {
      write(view, position, claims);
    }
    for (const Claim& claim : claims) claim.element->owner = 0;
  }

  bool claim(const View& view, std::uint64_t position, std::vector<Claim>& claims,
             bool may_be_pad) {
    if (position >= view.elements()) return false;
    const Place at = view.place(position);
    const unsigned frame = view.frames[at.layer];
    if (frame == 0 || (at.y >= board_.frame(frame).rows && !may_be_pad)) return false;
    const std::uint32_t id = board_.id(frame, at.x, at.y);
    Element& element = board_.element(id);
    std::uint8_t nobody = 0;
    if (!element.owner.compare_exchange_strong(nobody, static_cast<std::uint8_t>(number_ + 1)))
      return false;
    claims.push_back({&element, id, frame, board_.frame(frame).changes});
    if (element.started < coding_.last_version() && board_.is_live(frame)) return true;
    element.owner = 0;
    claims.pop_back();
    return false;
  }

  // Keeps the frames from being removed while stores are on the way.
  bool hold(const std::vector<Claim>& claims) {
    for (const Claim& claim : claims) ++board_.frame(claim.frame).holders;
    const bool all = std::all_of(claims.begin(), claims.end(),
                                 [&](const Claim& claim) { return board_.is_live(claim.frame); });
    if (!all) let_go(claims);
    return all;
  }
  void let_go(const std::vector<Claim>& claims) {
    for (const Claim& claim : claims) --board_.frame(claim.frame).holders;
  }

  // The element's next value.
  std::uint64_t next(const Claim& claim) {
    const std::uint32_t version = claim.element->started + 1;
    claim.element->writer = static_cast<std::uint8_t>(number_);
    claim.element->started = version;
    board_->ring[board_->poked++ % ring_size] = claim.id;
    return coding_.pack({claim.id, version, number_});
  }

  void acknowledge(const std::vector<Claim>& claims) {
    for (const Claim& claim : claims) claim.element->acknowledged = claim.element->started.load();
  }

  // By stores into the mapping, which count when msync(), or the close, has returned.
  void store(View& view, std::uint64_t position, const std::vector<Claim>& claims) {
    const std::size_t width = coding_.bytes();
    const std::size_t begin = view.head + position * width;
    const std::size_t end = begin + claims.size() * width;
    doing("store %zu elements at byte %zu of %s", claims.size(), begin, view.spec.path.c_str());
    for (std::size_t i = 0; i < claims.size(); ++i)
      coding_.store(view.map + begin + i * width,
                    coding_.to_file(next(claims[i]), view.spec.format));
    int error = 0;
    if (one_in(10)) {
      doing("munmap and close of %s after a store at byte %zu", view.spec.path.c_str(), begin);
      count(poke_close);
      error = view.close();
    } else {
      const std::size_t page = begin / 4096 * 4096;
      doing("msync of bytes %zu to %zu of %s", begin, end, view.spec.path.c_str());
      count(poke_msync);
      if (msync(view.map + page, end - page, MS_SYNC) != 0) error = errno;
    }
    if (error == 0)
      acknowledge(claims);
    else
      report_errno(self_.doing.data(), error);
    let_go(claims);
  }

  // By a write. It may begin and end within a neighbour whose bytes stay as they are.
  void write(View& view, std::uint64_t position, std::vector<Claim>& claims) {
    const std::size_t width = coding_.width(view.spec.format);
    std::size_t begin = view.head + position * width;
    Bytes bytes(claims.size() * width);
    std::vector<Claim> neighbours;
    Bytes neighbour(width);
    const auto borrow = [&](std::uint64_t at) {
      if (!one_in(3) || !claim(view, at, neighbours, false)) return std::size_t{0};
      const Claim& claim = neighbours.back();
      const std::uint32_t version = claim.element->acknowledged;
      if (version == 0 || claim.element->started != version)
        return std::size_t{0};  // one was refused: unknown
      const Value value{claim.id, version, claim.element->writer};
      coding_.write(neighbour.data(), coding_.pack(value), view.spec.format);
      return std::size_t{1} + below(width - 1);
    };
    for (std::size_t i = 0; i < claims.size(); ++i)
      coding_.write(&bytes[i * width], next(claims[i]), view.spec.format);
    if (const std::size_t some = position > 0 ? borrow(position - 1) : 0) {
      bytes.insert(bytes.begin(), neighbour.end() - static_cast<std::ptrdiff_t>(some),
                   neighbour.end());
      begin -= some;
    }
    if (const std::size_t some = borrow(position + claims.size()))
      bytes.insert(bytes.end(), neighbour.begin(),
                   neighbour.begin() + static_cast<std::ptrdiff_t>(some));
    count(!neighbours.empty() ? poke_unaligned : claims.size() > 1 ? poke_span : poke_write);
    doing("pwrite %zu bytes at %zu of %s", bytes.size(), begin, view.spec.path.c_str());
    const int error = put(view, begin, bytes, claims);
    for (const Claim& claim : neighbours) claim.element->owner = 0;
    settle(claims, error);
  }

  // After a write: an errno, or 0. One to a frame that was removed meanwhile may be refused.
  void settle(const std::vector<Claim>& claims, int error) {
    if (error == 0) return acknowledge(claims);
    const bool is_removed = std::any_of(claims.begin(), claims.end(), [&](const Claim& claim) {
      return !board_.is_live(claim.frame) || board_.frame(claim.frame).changes != claim.changes;
    });
    if (is_removed && (error == EROFS || error == ESTALE || error == ENOENT))
      return count(pokes_refused);
    report_errno(self_.doing.data(), error);
  }

  // Writes the whole view anew, as cp does over a name. False: not possible with this one.
  bool write_over(View& view) {
    if (options_.plain || view.spec.frame != 0 || view.elements() > 4096 || view.can_grow())
      return false;
    std::vector<Claim> claims;
    while (claims.size() < view.elements() && claim(view, claims.size(), claims, true)) continue;
    const bool all = claims.size() == view.elements();
    if (all) write_over(view, claims);
    for (const Claim& claim : claims) claim.element->owner = 0;
    return all;
  }

  void write_over(View& view, const std::vector<Claim>& claims) {
    const std::size_t width = coding_.width(view.spec.format);
    doing("writing over %s", view.spec.path.c_str());
    Bytes content(view.size);
    if (pread(view.fd, content.data(), content.size(), 0) != static_cast<ssize_t>(content.size()))
      return report_errno(self_.doing.data(), errno);
    // The same inode, whatever the name means by now.
    const std::string path = text("/proc/self/fd/%d", view.fd);
    const int file = ::open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (file < 0) {
      // What it shows may have gone, though it stays open.
      if (errno != ESTALE || board_.is_unchanged(view.structure))
        report_errno(self_.doing.data(), errno);
      return;
    }
    for (std::size_t i = 0; i < claims.size(); ++i) {
      const bool stays_pad = claims[i].element->started == 0;  // that would be a patch for each
      coding_.write(&content[view.head + i * width], stays_pad ? 0 : next(claims[i]),
                    view.spec.format);
    }
    int error = 0;
    for (std::size_t at = 0; at < content.size() && error == 0;) {
      const std::size_t some = std::min<std::size_t>(content.size() - at, 1 + below(16384));
      const ssize_t put = ::write(file, content.data() + at, some);
      if (put <= 0) error = put < 0 ? errno : EIO;
      at += static_cast<std::size_t>(std::max<ssize_t>(put, 0));
    }
    if (::close(file) != 0 && error == 0) error = errno;
    count(poke_whole);
    settle(claims, error);
  }

  int put(View& view, std::size_t begin, const Bytes& bytes, const std::vector<Claim>& claims) {
    if (options_.inject != Fault::none && one_in(20)) {
      if (options_.inject == Fault::lost) return 0;
      if (options_.inject == Fault::stale) acknowledge(claims);
      if (options_.inject == Fault::torn)
        (void)!pwrite(view.fd, bytes.data(), bytes.size() - coding_.bytes() / 2,
                      static_cast<off_t>(begin));
      if (options_.inject == Fault::hang) pause();
      std::this_thread::sleep_for(5ms);
    }
    for (std::size_t done = 0; done < bytes.size();) {
      const ssize_t some = pwrite(view.fd, bytes.data() + done, bytes.size() - done,
                                  static_cast<off_t>(begin + done));
      if (some <= 0) return some < 0 ? errno : EIO;
      done += static_cast<std::size_t>(some);
    }
    return 0;
  }

  // ---- The end ----

  void verify(const Spec& spec) {
    for (const Access access : {Access::descriptor, Access::shared, Access::private_mapping}) {
      const std::unique_ptr<View> view = open(spec, access, board_.structure());
      if (view == nullptr) continue;
      for (std::uint64_t at = 0; at < view->elements(); at += whole) read(*view, at, whole);
    }
  }

  std::vector<std::unique_ptr<View>> views_;
  Structure structure_;
  bool final_ = false;
};

}  // namespace stress
