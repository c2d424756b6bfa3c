// The daemon's side of the protocol without a mount: requests come over a socket.

#include "fs/session.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/store.h"
#include "tests/support/fake_kernel.h"

namespace accrete {
namespace {

// A NPY file of float32, numpy's shape (ny, nx), whose elements count up from `first`.
std::string npy_frame(unsigned nx, unsigned ny, float first) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(ny) +
                       ", " + std::to_string(nx) + "), }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() & 0xff);
  file += static_cast<char>(header.size() >> 8);
  file += header;
  for (unsigned i = 0; i < nx * ny; ++i) {
    const float value = first + static_cast<float>(i);
    file.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return file;
}

std::vector<float> floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

class SessionTest : public ::testing::Test {
 protected:
  static constexpr unsigned nx = 5, ny = 3;

  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "accrete-fs-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    start(Caching::automatic, true);
  }

  void TearDown() override {
    stop();
    std::filesystem::remove_all(directory_);
  }

  void start(Caching caching, bool offers_mmap) {
    auto store = Store::open((directory_ / "store").string(), {});
    ASSERT_TRUE(store.ok()) << store.error().sentence;
    store_ = *std::move(store);
    store_->start();
    tree_ = std::make_unique<Tree>(*store_, *store_->attributes(), caching);
    auto session = Session::make(*tree_, {}, false, caching != Caching::cached);
    ASSERT_TRUE(session.ok()) << session.error().sentence;
    session_ = *std::move(session);
    kernel_ = std::make_unique<FakeKernel>();
    ASSERT_TRUE(session_->attach(kernel_->session_fd()).ok());
    loop_ = std::thread([this] { EXPECT_TRUE(session_->loop(4, false).ok()); });
    init_ = kernel_->init(offers_mmap);
  }

  void stop() {
    if (kernel_ == nullptr) return;
    EXPECT_EQ(kernel_->unanswered(), 0u);
    kernel_->hang_up();
    loop_.join();
    session_.reset();
    EXPECT_EQ(kernel_->second_answers(), 0u);
    kernel_.reset();
    tree_.reset();
    store_.reset();
  }

  void restart(Caching caching, bool offers_mmap) {
    stop();
    start(caching, offers_mmap);
  }

  FakeKernel& kernel() { return *kernel_; }

  std::uint64_t make_cube() {
    EXPECT_EQ(kernel().mkdir(FUSE_ROOT_ID, "m").error, 0);
    return kernel().node("m/append");
  }

  // An open file in a door.
  struct Incoming {
    std::uint64_t node = 0;
    std::uint64_t handle = 0;
    int error = 0;
  };
  Incoming create(std::uint64_t door, std::string_view name) {
    const FakeKernel::Answer answer = kernel().create(door, name);
    return {FakeKernel::created_node(answer), FakeKernel::created_handle(answer), answer.error};
  }
  int write(const Incoming& file, std::uint64_t offset, std::string_view bytes) {
    return kernel().write(file.node, file.handle, offset, bytes).error;
  }
  int flush(const Incoming& file) { return kernel().flush(file.node, file.handle).error; }
  void release(const Incoming& file) {
    EXPECT_EQ(kernel().release(file.node, file.handle).error, 0);
  }
  // As cp does; the answer of close().
  int copy(std::uint64_t door, std::string_view name, std::string_view bytes) {
    const Incoming file = create(door, name);
    if (file.error != 0) return file.error;
    EXPECT_EQ(write(file, 0, bytes), 0);
    const int answer = flush(file);
    release(file);
    return answer;
  }
  void append_frames(std::uint64_t door, unsigned count, unsigned from = 0) {
    for (unsigned i = from; i < from + count; ++i)
      ASSERT_EQ(copy(door, "f" + std::to_string(i) + ".npy",
                     npy_frame(nx, ny, static_cast<float>(100 * i))),
                0);
  }

  std::string content(std::string_view path) {
    const std::uint64_t node = kernel().node(path);
    const FakeKernel::Answer opened = kernel().open(node, O_RDONLY);
    EXPECT_EQ(opened.error, 0) << path;
    if (opened.error != 0) return {};
    const std::uint64_t handle = opened.as<fuse_open_out>().fh;
    std::string bytes;
    for (;;) {
      const FakeKernel::Answer part = kernel().read(node, handle, bytes.size(), 4096);
      EXPECT_EQ(part.error, 0);
      if (part.error != 0 || part.body.empty()) break;
      bytes += part.body;
    }
    EXPECT_EQ(kernel().release(node, handle).error, 0);
    return bytes;
  }

  std::vector<std::string> list(std::string_view path, std::uint32_t size = 4096,
                                std::vector<std::uint64_t>* offsets = nullptr,
                                std::uint64_t from = 0) {
    const std::uint64_t node = kernel().node(path);
    const FakeKernel::Answer opened = kernel().opendir(node);
    EXPECT_EQ(opened.error, 0) << path;
    const std::uint64_t handle = opened.as<fuse_open_out>().fh;
    std::vector<std::string> names;
    for (std::uint64_t offset = from;;) {
      const FakeKernel::Answer part = kernel().readdir(node, handle, offset, size);
      EXPECT_EQ(part.error, 0);
      if (part.error != 0 || part.body.empty()) break;
      for (std::size_t at = 0; at < part.body.size();) {
        fuse_dirent entry;
        std::memcpy(&entry, part.body.data() + at, FUSE_NAME_OFFSET);
        names.push_back(part.body.substr(at + FUSE_NAME_OFFSET, entry.namelen));
        offset = entry.off;
        if (offsets != nullptr) offsets->push_back(offset);
        at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
      }
    }
    EXPECT_EQ(kernel().call(FUSE_RELEASEDIR, node, release_body(handle)).error, 0);
    return names;
  }

  static std::string release_body(std::uint64_t handle) {
    fuse_release_in in{};
    in.fh = handle;
    return std::string(reinterpret_cast<const char*>(&in), sizeof in);
  }

  std::filesystem::path directory_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Tree> tree_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<FakeKernel> kernel_;
  std::thread loop_;
  fuse_init_out init_{};
};

constexpr std::uint32_t init_ext = 1u << 30;
constexpr std::uint32_t allow_mmap = 1u << 4;

TEST_F(SessionTest, InitAsksForSharedMappingsWhereTheKernelOffersThem) {
  EXPECT_NE(init_.flags & init_ext, 0u);
  EXPECT_NE(init_.flags2 & allow_mmap, 0u);
  EXPECT_EQ(init_.flags & FUSE_ATOMIC_O_TRUNC, 0u);
  EXPECT_EQ(init_.max_write, 1u << 20);
  restart(Caching::automatic, false);
  EXPECT_EQ(init_.flags2 & allow_mmap, 0u);
  restart(Caching::cached, true);
  EXPECT_EQ(init_.flags2 & allow_mmap, 0u);
}

TEST_F(SessionTest, ViewsAreOpenedAsTheKernelAndTheOptionSay) {
  append_frames(make_cube(), 1);
  const auto direct = [&] {
    const std::uint64_t node = kernel().node("m/slices/xy/z0.raw");
    const auto opened = kernel().open(node, O_RDONLY).as<fuse_open_out>();
    EXPECT_EQ(opened.open_flags & FOPEN_KEEP_CACHE, 0u);
    kernel().release(node, opened.fh);
    return (opened.open_flags & FOPEN_DIRECT_IO) != 0;
  };
  EXPECT_TRUE(direct());
  restart(Caching::automatic, false);
  EXPECT_FALSE(direct());
  restart(Caching::direct, false);
  EXPECT_TRUE(direct());
  restart(Caching::cached, true);
  EXPECT_FALSE(direct());
}

TEST_F(SessionTest, AFrameThatIsCopiedInIsShownByItsPlane) {
  const std::uint64_t door = make_cube();
  const std::string frame = npy_frame(nx, ny, 7);
  ASSERT_EQ(copy(door, "a.npy", frame), 0);
  EXPECT_EQ(content("m/append/a.npy"), frame);
  EXPECT_EQ(content("m/frames/a.npy"), frame);
  EXPECT_EQ(content("m/meta/shape"), "5 3 1\n");
  const std::vector<float> plane = floats(content("m/slices/xy/z0.raw"));
  ASSERT_EQ(plane.size(), nx * ny);
  for (unsigned i = 0; i < nx * ny; ++i) EXPECT_EQ(plane[i], 7.0f + static_cast<float>(i));
}

TEST_F(SessionTest, ReadsAtAnyOffsetAndSizeAreThatPartOfTheFile) {
  append_frames(make_cube(), 3);
  for (const char* path : {"m/cube.fits", "m/cube.npy", "m/slices/zx/y1.raw", "m/slices/yx/z2.txt",
                           "m/frames/f1.npy", "m/slices/xyz/x1..4_z1..3.npy"}) {
    SCOPED_TRACE(path);
    const std::string whole = content(path);
    const std::uint64_t node = kernel().node(path);
    EXPECT_EQ(kernel().getattr(node).as<fuse_attr_out>().attr.size, whole.size());
    const std::uint64_t handle = kernel().open(node, O_RDONLY).as<fuse_open_out>().fh;
    for (std::uint64_t offset = 0; offset < whole.size() + 3; offset += 1 + offset / 7)
      for (const std::uint32_t size : {1u, 3u, 64u, 2881u})
        ASSERT_EQ(kernel().read(node, handle, offset, size).body,
                  offset < whole.size() ? whole.substr(offset, size) : "")
            << offset << " " << size;
    kernel().release(node, handle);
  }
}

TEST_F(SessionTest, AFileMayComeInAnyOrderAndIsReadBack) {
  const std::uint64_t door = make_cube();
  const std::string frame = npy_frame(nx, ny, 1);
  const Incoming file = create(door, "a.npy");
  EXPECT_EQ(write(file, 100, frame.substr(100)), 0);
  EXPECT_EQ(write(file, 0, frame.substr(0, 100)), 0);
  EXPECT_EQ(kernel().read(file.node, file.handle, 90, 20).body, frame.substr(90, 20));
  EXPECT_EQ(flush(file), 0);
  release(file);
  EXPECT_EQ(content("m/frames/a.npy"), frame);
}

TEST_F(SessionTest, AppendingWritesGoToTheEndWhateverTheOffset) {
  const std::uint64_t door = make_cube();
  const std::string frame = npy_frame(nx, ny, 1);
  const Incoming file = create(door, "a.npy");
  for (std::size_t at = 0; at < frame.size(); at += 50)
    EXPECT_EQ(kernel().write(file.node, file.handle, 0, frame.substr(at, 50), O_APPEND).error, 0);
  EXPECT_EQ(flush(file), 0);
  release(file);
  EXPECT_EQ(content("m/frames/a.npy"), frame);
}

TEST_F(SessionTest, CloseWithoutNewsRepeatsItsAnswer) {
  const std::uint64_t door = make_cube();
  const Incoming file = create(door, "a.npy");
  EXPECT_EQ(write(file, 0, npy_frame(nx, ny, 1)), 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(flush(file), 0);
  release(file);
  EXPECT_EQ(content("m/meta/shape"), "5 3 1\n");

  const Incoming bad = create(door, "bad");
  EXPECT_EQ(write(bad, 0, "no frame at all"), 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(flush(bad), EINVAL);
  release(bad);
}

TEST_F(SessionTest, AnIncompleteFileIsAnErrorAtTheLastCloseAndMayStillBeCompleted) {
  const std::uint64_t door = make_cube();
  const std::string frame = npy_frame(nx, ny, 1);
  const Incoming file = create(door, "a.npy");
  EXPECT_EQ(flush(file), EINVAL) << "nothing was written";
  EXPECT_EQ(write(file, 0, frame.substr(0, 100)), 0);
  EXPECT_EQ(flush(file), EINVAL);
  EXPECT_EQ(write(file, 100, frame.substr(100)), 0);
  EXPECT_EQ(flush(file), 0);
  release(file);
  EXPECT_EQ(content("m/frames/a.npy"), frame);
}

TEST_F(SessionTest, WhatIsIncompleteAtTheReleaseIsRefusedAndTold) {
  const std::uint64_t door = make_cube();
  append_frames(door, 1);
  const Incoming file = create(door, "half.npy");
  EXPECT_EQ(write(file, 0, npy_frame(nx, ny, 1).substr(0, 150)), 0);
  EXPECT_EQ(list("m/append"), (std::vector<std::string>{".", "..", "f0.npy", "half.npy"}));
  EXPECT_EQ(list("m/frames"), (std::vector<std::string>{".", "..", "f0.npy"}));
  release(file);
  EXPECT_EQ(kernel().lookup(door, "half.npy").error, ENOENT);
  EXPECT_EQ(list("m/append"), (std::vector<std::string>{".", "..", "f0.npy"}));
  EXPECT_NE(content("m/history").find("half.npy"), std::string::npos);
  EXPECT_NE(content("m/last-error"), "");
  EXPECT_EQ(content("m/meta/shape"), "5 3 1\n");
}

TEST_F(SessionTest, SeveralDescriptionsOfOneIncomingFileAreOneFile) {
  const std::uint64_t door = make_cube();
  const std::string frame = npy_frame(nx, ny, 1);
  const Incoming first = create(door, "a.npy");
  const std::uint64_t again = kernel().node("m/append/a.npy");
  EXPECT_EQ(again, first.node);
  const Incoming second{again, kernel().open(again, O_WRONLY).as<fuse_open_out>().fh, 0};
  EXPECT_EQ(write(first, 0, frame.substr(0, 100)), 0);
  release(first);  // not the last one
  EXPECT_EQ(write(second, 100, frame.substr(100)), 0);
  EXPECT_EQ(flush(second), 0);
  release(second);
  EXPECT_EQ(content("m/frames/a.npy"), frame);
}

TEST_F(SessionTest, TheInodeOfAnIncomingFileBecomesTheFrames) {
  const std::uint64_t door = make_cube();
  const Incoming file = create(door, "a.npy");
  EXPECT_EQ(write(file, 0, npy_frame(nx, ny, 1)), 0);
  EXPECT_EQ(flush(file), 0);
  EXPECT_EQ(kernel().node("m/append/a.npy"), file.node);
  EXPECT_EQ(kernel().node("m/frames/a.npy"), file.node);
  release(file);
  EXPECT_EQ(kernel().node("m/frames/a.npy"), file.node);
}

TEST_F(SessionTest, TemporaryNamesAreCommittedByTheirRename) {
  const std::uint64_t door = make_cube();
  const std::string frame = npy_frame(nx, ny, 1);
  EXPECT_EQ(copy(door, ".a.npy.Xy12Zz", frame), 0);
  EXPECT_EQ(list("m/frames").size(), 2u);
  EXPECT_EQ(content("m/append/.a.npy.Xy12Zz"), frame);
  EXPECT_EQ(kernel().rename(door, ".a.npy.Xy12Zz", door, "a.npy").error, 0);
  EXPECT_EQ(content("m/frames/a.npy"), frame);
  EXPECT_EQ(kernel().lookup(door, ".a.npy.Xy12Zz").error, ENOENT);

  EXPECT_EQ(copy(door, ".b.npy.Xy12Zz", frame.substr(0, 90)), 0);
  EXPECT_EQ(kernel().rename(door, ".b.npy.Xy12Zz", door, "b.npy").error, EINVAL);
  EXPECT_EQ(kernel().lookup(door, "b.npy").error, ENOENT);
  EXPECT_EQ(kernel().unlink(door, ".b.npy.Xy12Zz").error, 0);
  EXPECT_EQ(kernel().lookup(door, ".b.npy.Xy12Zz").error, ENOENT);

  EXPECT_EQ(copy(door, ".goutputstream-1", npy_frame(nx, ny, 2)), 0);
  EXPECT_EQ(kernel().rename(door, ".goutputstream-1", door, "a.npy").error, 0);
  EXPECT_EQ(content("m/frames/a.npy"), npy_frame(nx, ny, 2));
  EXPECT_EQ(content("m/meta/shape"), "5 3 1\n");
}

TEST_F(SessionTest, WhatIsUnlinkedIsRemovedAndComesBackByARename) {
  const std::uint64_t door = make_cube();
  append_frames(door, 3);
  const std::uint64_t removed = kernel().node("m/removed");
  const std::string before = content("m/cube.npy");
  EXPECT_EQ(kernel().unlink(door, "f1.npy").error, 0);
  EXPECT_EQ(content("m/meta/shape"), "5 3 2\n");
  EXPECT_EQ(content("m/removed/f1.npy"), npy_frame(nx, ny, 100));
  EXPECT_EQ(kernel().lookup(door, "f1.npy").error, ENOENT);
  EXPECT_EQ(kernel().rename(removed, "f1.npy", door, "f1.npy").error, 0);
  EXPECT_EQ(content("m/cube.npy"), before);
  EXPECT_EQ(kernel().unlink(removed, "f1.npy").error, ENOENT);
  for (const char* name : {"f0.npy", "f1.npy", "f2.npy"}) {
    EXPECT_EQ(kernel().unlink(door, name).error, 0);
    EXPECT_EQ(kernel().unlink(removed, name).error, 0);
  }
  EXPECT_EQ(content("m/meta/shape"), "\n");
}

TEST_F(SessionTest, AnIncomingFileThatIsUnlinkedIsGone) {
  const std::uint64_t door = make_cube();
  const Incoming file = create(door, "a.npy");
  EXPECT_EQ(kernel().unlink(door, "a.npy").error, 0);
  EXPECT_EQ(kernel().lookup(door, "a.npy").error, ENOENT);
  EXPECT_NE(write(file, 0, npy_frame(nx, ny, 1)), 0);
  release(file);
  EXPECT_EQ(list("m/append").size(), 2u);
}

TEST_F(SessionTest, AFrameIsWrittenOverByATruncationAfterItsOpen) {
  const std::uint64_t door = make_cube();
  append_frames(door, 1);
  const std::string old = content("m/frames/f0.npy");
  const std::uint64_t node = kernel().node("m/append/f0.npy");
  constexpr pid_t pid = 4242, other = 4243;
  // The kernel tells of O_TRUNC by a SETATTR of the same thread.
  const auto open_by = [&](pid_t who) {
    fuse_open_in in{};
    in.flags = O_WRONLY;
    const std::string body(reinterpret_cast<const char*>(&in), sizeof in);
    return Incoming{node, kernel().call(FUSE_OPEN, node, body, who).as<fuse_open_out>().fh, 0};
  };
  const Incoming plain = open_by(other);
  EXPECT_EQ(write(plain, 0, "x"), EPERM) << "without a truncation it is written in place";
  const Incoming file = open_by(pid);
  EXPECT_EQ(kernel().truncate(node, 5, pid).error, EROFS);
  const FakeKernel::Answer truncated = kernel().truncate(node, 0, pid);
  EXPECT_EQ(truncated.error, 0);
  EXPECT_EQ(truncated.as<fuse_attr_out>().attr.size, old.size()) << "who maps it keeps its pages";
  const std::string fresh = npy_frame(nx, ny, 5000);
  EXPECT_EQ(write(file, 0, fresh), 0);
  EXPECT_EQ(content("m/frames/f0.npy"), old) << "until the close";
  EXPECT_EQ(flush(file), 0);
  release(file);
  release(plain);
  EXPECT_EQ(content("m/frames/f0.npy"), fresh);
  EXPECT_EQ(content("m/frames/f0.npy.~1~"), old);
  EXPECT_EQ(content("m/meta/shape"), "5 3 2\n");
}

TEST_F(SessionTest, WithDurabilityDiskTheAnswerOfCloseComesAfterTheSync) {
  const std::uint64_t door = make_cube();
  const std::uint64_t node = kernel().node("m/meta/durability");
  const std::uint64_t handle = kernel().open(node, O_WRONLY).as<fuse_open_out>().fh;
  EXPECT_EQ(kernel().write(node, handle, 0, "neither\n").error, EINVAL);
  EXPECT_EQ(kernel().write(node, handle, 0, "disk\n").error, 0);
  kernel().release(node, handle);
  append_frames(door, 3);
  EXPECT_EQ(content("m/meta/shape"), "5 3 3\n");
}

TEST_F(SessionTest, ListingsGoOnFromAnyOffset) {
  append_frames(make_cube(), 60);
  std::vector<std::uint64_t> offsets;
  const std::vector<std::string> all = list("m/slices/xy", 4096, &offsets);
  ASSERT_EQ(all.size(), 62u);
  EXPECT_EQ(all[2], "z000000.npy");
  EXPECT_EQ(all.back(), "z000059.npy");
  EXPECT_EQ(list("m/slices/xy", 200), all) << "in small pieces";
  for (std::size_t i = 0; i < offsets.size(); i += 7)
    EXPECT_EQ(
        list("m/slices/xy", 512, nullptr, offsets[i]),
        std::vector<std::string>(all.begin() + static_cast<std::ptrdiff_t>(i) + 1, all.end()));
  EXPECT_EQ(list("m/slices"),
            (std::vector<std::string>{".", "..", "xy", "xz", "yz", "zx", "zy", "x", "y", "z"}));
  EXPECT_EQ(list("m/slices/x").size(), 62u) << "directories of the slowest axis";
  EXPECT_EQ(list("m/slices/x/z3"),
            (std::vector<std::string>{".", "..", "y000000.npy", "y000001.npy", "y000002.npy"}));
  EXPECT_EQ(list("m/frames")[2], "f0.npy");
}

TEST_F(SessionTest, ListedInodeNumbersAreThoseOfTheFiles) {
  append_frames(make_cube(), 3);
  for (const std::string directory : {"m/slices/xy", "m/slices/z/y0", "m/slices/x", "m/frames",
                                      "m/append", "m/slices", "m/meta", "m"}) {
    const std::uint64_t node = kernel().node(directory);
    const std::uint64_t handle = kernel().opendir(node).as<fuse_open_out>().fh;
    const FakeKernel::Answer part = kernel().readdir(node, handle, 0, 4096);
    for (std::size_t at = 0; at < part.body.size();) {
      fuse_dirent entry;
      std::memcpy(&entry, part.body.data() + at, FUSE_NAME_OFFSET);
      const std::string name = part.body.substr(at + FUSE_NAME_OFFSET, entry.namelen);
      at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
      if (name == "." || name == "..") continue;
      const FakeKernel::Answer found = kernel().lookup(node, name);
      ASSERT_EQ(found.error, 0) << directory << "/" << name;
      EXPECT_EQ(found.as<fuse_entry_out>().attr.ino, entry.ino) << directory << "/" << name;
    }
    kernel().call(FUSE_RELEASEDIR, node, release_body(handle));
  }
}

// What a READDIRPLUS says.
struct PlusEntry {
  std::string name;
  fuse_entry_out entry{};
  fuse_dirent listed{};
};

std::vector<PlusEntry> plus_entries(const std::string& body) {
  std::vector<PlusEntry> entries;
  for (std::size_t at = 0; at < body.size();) {
    fuse_direntplus plus;
    std::memcpy(&plus, body.data() + at, FUSE_NAME_OFFSET_DIRENTPLUS);
    entries.push_back({body.substr(at + FUSE_NAME_OFFSET_DIRENTPLUS, plus.dirent.namelen),
                       plus.entry_out, plus.dirent});
    at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + plus.dirent.namelen);
  }
  return entries;
}

TEST_F(SessionTest, AListingOfViewsWithAttributesIsALookUpOfEach) {
  const std::uint64_t door = make_cube();
  append_frames(door, 3);
  const std::uint64_t planes = kernel().node("m/slices/xy");
  const std::size_t known = tree_->nodes().size();
  const std::uint64_t handle = kernel().opendir(planes).as<fuse_open_out>().fh;
  const auto entries = plus_entries(kernel().readdirplus(planes, handle, 0, 4096).body);
  ASSERT_EQ(entries.size(), 5u);
  EXPECT_EQ(tree_->nodes().size(), known + 3);
  for (const PlusEntry& found : entries) {
    if (found.name == "." || found.name == "..") {
      EXPECT_EQ(found.entry.nodeid, 0u);
      continue;
    }
    const auto looked_up = kernel().lookup(planes, found.name).as<fuse_entry_out>();
    EXPECT_EQ(found.entry.nodeid, looked_up.nodeid) << found.name;
    EXPECT_EQ(found.entry.entry_valid, looked_up.entry_valid);
    EXPECT_GT(found.entry.entry_valid, 60u);
    EXPECT_EQ(found.entry.attr.size, looked_up.attr.size);
    EXPECT_EQ(found.entry.attr.ino, looked_up.attr.ino);
    EXPECT_EQ(found.listed.ino, looked_up.attr.ino);
    kernel().forget(looked_up.nodeid, 2);
  }
  // Forgetting has no answer; it is done when what is asked next is.
  for (int i = 0; i < 1000 && tree_->nodes().size() != known; ++i) kernel().getattr(planes);
  EXPECT_EQ(tree_->nodes().size(), known);

  // Names are as of the opening, what they mean is as of now.
  ASSERT_EQ(kernel().unlink(door, "f0.npy").error, 0);
  const auto now = plus_entries(kernel().readdirplus(planes, handle, 2, 4096).body);
  ASSERT_EQ(now.size(), 3u);
  EXPECT_EQ(now[0].entry.nodeid, kernel().node("m/slices/xy/z0.npy"));
  EXPECT_EQ(now[1].entry.nodeid, kernel().node("m/slices/xy/z1.npy"));
  EXPECT_EQ(now[2].name, "z000002.npy");
  EXPECT_EQ(now[2].entry.nodeid, 0u) << "there is none any more";
  EXPECT_NE(now[2].listed.ino, 0u);
  kernel().call(FUSE_RELEASEDIR, planes, release_body(handle));
}

TEST_F(SessionTest, AListingOfOtherThingsWithAttributesTellsNoMoreThanWithout) {
  append_frames(make_cube(), 3);
  for (const std::string directory : {"m", "m/frames", "m/append", "m/slices", "m/slices/x"}) {
    const std::uint64_t node = kernel().node(directory);
    const std::size_t known = tree_->nodes().size();
    const std::uint64_t handle = kernel().opendir(node).as<fuse_open_out>().fh;
    const auto entries = plus_entries(kernel().readdirplus(node, handle, 0, 1 << 16).body);
    EXPECT_GT(entries.size(), 4u) << directory;
    for (const PlusEntry& found : entries) EXPECT_EQ(found.entry.nodeid, 0u) << found.name;
    EXPECT_EQ(tree_->nodes().size(), known);
    kernel().call(FUSE_RELEASEDIR, node, release_body(handle));
  }
}

TEST_F(SessionTest, NamesThatAreBelievedAreRevokedBeforeWhoChangesThemIsAnswered) {
  const std::uint64_t door = make_cube();
  append_frames(door, 2);
  const std::uint64_t planes = kernel().node("m/slices/xy");
  const std::uint64_t rows = kernel().node("m/slices/xz");
  const auto believed = [&](std::uint64_t directory, std::string_view name) {
    return kernel().lookup(directory, name).as<fuse_entry_out>().entry_valid > 60;
  };
  EXPECT_TRUE(believed(planes, "z000001.npy"));
  EXPECT_TRUE(believed(planes, "z000001.raw"));
  EXPECT_FALSE(believed(planes, "z1.npy")) << "the same node has another name already";
  EXPECT_TRUE(believed(rows, "y000001.npy"));
  EXPECT_FALSE(believed(planes, "z000007.npy"));
  EXPECT_FALSE(believed(door, "f0.npy"));

  using Revoked = std::vector<FakeKernel::Revoked>;
  append_frames(door, 1, 2);
  EXPECT_EQ(kernel().revoked_names(), (Revoked{{rows, "y000001.npy"}})) << "planes are the same";
  EXPECT_TRUE(believed(rows, "y000001.npy"));

  ASSERT_EQ(kernel().unlink(door, "f0.npy").error, 0);
  Revoked told = kernel().revoked_names();
  ASSERT_EQ(told.size(), 4u);
  for (const FakeKernel::Revoked& name :
       {FakeKernel::Revoked{planes, "z000001.npy"}, {planes, "z000001.raw"}, {rows, "y000001.npy"}})
    EXPECT_NE(std::find(told.begin() + 1, told.end(), name), told.end()) << name.name;
  append_frames(door, 1, 3);
  EXPECT_EQ(kernel().revoked_names().size(), 4u) << "each once";
}

TEST_F(SessionTest, AliasesOfAViewAreOneInode) {
  append_frames(make_cube(), 2);
  const std::uint64_t node = kernel().node("m/slices/z/x1/y2.raw");
  ASSERT_NE(node, 0u);
  for (const char* path : {"m/slices/z/y2/x1.raw", "m/slices/z/x1_y2.raw", "m/slices/z/y2_x1.raw",
                           "m/slices/z/y000002_x000001.raw", "m/slices/z/z0.._x1_y2.raw"})
    EXPECT_EQ(kernel().node(path), node) << path;
  for (const char* path :
       {"m/slices/z/x1_y2.npy", "m/slices/z/x1_y2_z0..2.raw", "m/slices/z/x2_y1.raw"})
    EXPECT_NE(kernel().node(path), node) << path;
}

TEST_F(SessionTest, NamesThatMeanNothingAreNotThere) {
  append_frames(make_cube(), 2);
  for (const char* path : {"m/slices/xx",
                           "m/slices/q",
                           "m/slices/xy/z2.raw",
                           "m/slices/xy/z-1.raw",
                           "m/slices/xy/z0.jpg",
                           "m/slices/xy/x0_z0.raw",
                           "m/slices/xy/z0_z1.raw",
                           "m/slices/xy/x3..3_z0.raw",
                           "m/slices/xy/x4..9_z0.raw",
                           "m/slices/x/z0.raw",
                           "m/slices/x/z9",
                           "m/cube.jpg",
                           "m/append/q",
                           "m/append/y/z",
                           "m/insert/z/3",
                           "m/insert/z/-1",
                           "m/insert/z/1x",
                           "m/insert/q",
                           "m/meta/colour",
                           "n"})
    EXPECT_EQ(kernel().walk(path).error, ENOENT) << path;
}

TEST_F(SessionTest, LinksNameTheLastAndTheNewestPlane) {
  const std::uint64_t door = make_cube();
  append_frames(door, 2);
  const auto target = [&](std::string_view path) {
    return kernel().call(FUSE_READLINK, kernel().node(path), "").body;
  };
  EXPECT_EQ(target("m/slices/xy/last.fits"), "z000001.fits");
  EXPECT_EQ(target("m/slices/xy/newest.npy"), "z000001.npy");
  EXPECT_EQ(target("m/slices/xz/last.raw"), "y000002.raw");
  EXPECT_EQ(kernel().walk("m/slices/xz/newest.raw").error, ENOENT);
  append_frames(door, 1, 2);
  EXPECT_EQ(target("m/slices/xy/newest.npy"), "z000002.npy");
}

TEST_F(SessionTest, GrowthExtendsRawViewsAndGivesOthersANewInode) {
  const std::uint64_t door = make_cube();
  append_frames(door, 2);
  const std::uint64_t raw = kernel().node("m/cube.raw");
  const std::uint64_t npy = kernel().node("m/cube.npy");
  const std::uint64_t plane = kernel().node("m/slices/xy/z1.npy");
  const std::uint64_t raw_handle = kernel().open(raw, O_RDONLY).as<fuse_open_out>().fh;
  const std::uint64_t npy_handle = kernel().open(npy, O_RDONLY).as<fuse_open_out>().fh;
  const std::string npy_before = kernel().read(npy, npy_handle, 0, 4096).body;
  constexpr std::uint64_t plane_bytes = nx * ny * sizeof(float);
  EXPECT_EQ(kernel().read(raw, raw_handle, 2 * plane_bytes, 4096).body, "");

  append_frames(door, 1, 2);
  EXPECT_EQ(kernel().node("m/cube.raw"), raw);
  EXPECT_EQ(kernel().node("m/slices/xy/z1.npy"), plane);
  EXPECT_NE(kernel().node("m/cube.npy"), npy);
  EXPECT_EQ(kernel().walk("m/cube.npy").as<fuse_entry_out>().attr.ino,
            kernel().getattr(npy).as<fuse_attr_out>().attr.ino)
      << "what cp compares before and after its open";
  EXPECT_EQ(kernel().getattr(raw).as<fuse_attr_out>().attr.size, 3 * plane_bytes);
  EXPECT_EQ(floats(kernel().read(raw, raw_handle, 2 * plane_bytes, 4096).body).at(0), 200.0f);
  EXPECT_EQ(kernel().read(npy, npy_handle, 0, 4096).body, npy_before);
  EXPECT_EQ(kernel().getattr(npy).as<fuse_attr_out>().attr.size, npy_before.size());

  // The kernel was told of the longer file, and of nothing else.
  bool told = false;
  for (const fuse_notify_inval_inode_out& notice : kernel().invalidations()) {
    EXPECT_EQ(notice.ino, raw);
    told = true;
  }
  EXPECT_TRUE(told);
  kernel().release(raw, raw_handle);
  kernel().release(npy, npy_handle);
}

TEST_F(SessionTest, PagesThatTheKernelKeepsAreInvalidatedFromTheOldEnd) {
  const std::uint64_t door = make_cube();
  append_frames(door, 2);
  const std::uint64_t raw = kernel().node("m/cube.raw");
  const std::uint64_t handle = kernel().open(raw, O_RDONLY).as<fuse_open_out>().fh;
  EXPECT_EQ(kernel().fill_page(raw, handle, 0).error, 0);
  append_frames(door, 1, 2);
  bool tail = false;
  for (const fuse_notify_inval_inode_out& notice : kernel().invalidations())
    tail = tail || (notice.ino == raw && notice.off == 0);
  EXPECT_TRUE(tail);
  kernel().release(raw, handle);
}

TEST_F(SessionTest, PagesOfAFileThatIsStillOpenAfterItsCommitAreInvalidatedByAPoke) {
  const std::uint64_t door = make_cube();
  const Incoming writer = create(door, "f.npy");
  EXPECT_EQ(write(writer, 0, npy_frame(nx, ny, 7)), 0);
  const std::uint64_t frame = writer.node;
  const std::uint64_t reader = kernel().open(frame, O_RDONLY).as<fuse_open_out>().fh;
  EXPECT_EQ(kernel().fill_page(frame, reader, 0).body, npy_frame(nx, ny, 7));
  EXPECT_EQ(flush(writer), 0);
  const std::uint64_t view = kernel().node("m/cube.raw");
  const std::uint64_t handle = kernel().open(view, O_RDWR).as<fuse_open_out>().fh;
  EXPECT_EQ(kernel().write(view, handle, 0, std::string(sizeof(float), '\1')).error, 0);
  bool is_told = false;
  for (const fuse_notify_inval_inode_out& notice : kernel().invalidations())
    is_told = is_told || (notice.ino == frame && notice.off == 0);
  EXPECT_TRUE(is_told);
  release(writer);
  kernel().release(frame, reader);
  kernel().release(view, handle);
}

TEST_F(SessionTest, AFrameCanBeMappedAsSoonAsItsCloseIsAnswered) {
  restart(Caching::cached, true);
  const std::uint64_t door = make_cube();
  const Incoming writer = create(door, "f.npy");
  EXPECT_EQ(write(writer, 0, npy_frame(nx, ny, 7)), 0);
  EXPECT_EQ(flush(writer), 0);
  const std::uint64_t frame = kernel().node("m/frames/f.npy");
  const auto opened = kernel().open(frame, O_RDONLY).as<fuse_open_out>();
  EXPECT_EQ(opened.open_flags & FOPEN_DIRECT_IO, 0u);
  EXPECT_EQ(kernel().read(frame, opened.fh, 0, 4096).body, npy_frame(nx, ny, 7));
  release(writer);
  kernel().release(frame, opened.fh);
}

TEST_F(SessionTest, PagesOfAFrameAreNotOfWhatIsToReplaceIt) {
  const std::uint64_t door = make_cube();
  const std::string was = npy_frame(nx, ny, 7);
  ASSERT_EQ(copy(door, "f.npy", was), 0);
  const std::uint64_t frame = kernel().node("m/append/f.npy");
  const std::uint64_t writer = kernel().open(frame, O_RDWR).as<fuse_open_out>().fh;
  EXPECT_EQ(kernel().truncate(frame, 0).error, 0);
  const std::string anew = npy_frame(nx, ny, 70);
  EXPECT_EQ(kernel().write(frame, writer, 0, anew).error, 0);
  EXPECT_EQ(kernel().read(frame, writer, 0, 4096).body, anew);
  EXPECT_EQ(kernel().fill_page(frame, writer, 0).body, was);
  // Whoever else has it mapped: the kernel takes any file that may write.
  std::string page = was;
  page.back() = '\1';
  EXPECT_EQ(kernel().write_page(frame, writer, 0, page).error, 0);
  EXPECT_EQ(content("m/slices/xy/z0.raw").back(), '\1');
  EXPECT_EQ(kernel().flush(frame, writer).error, 0);
  kernel().release(frame, writer);
  EXPECT_EQ(floats(content("m/slices/xy/z1.raw")).at(0), 70.0f);
}

TEST_F(SessionTest, AnFsyncAfterAPageCameBackFindsItsInvalidationsSent) {
  append_frames(make_cube(), 1);
  const std::uint64_t view = kernel().node("m/cube.raw");
  const std::uint64_t plane = kernel().node("m/slices/xy/z0.raw");
  const std::uint64_t writer = kernel().open(view, O_RDWR).as<fuse_open_out>().fh;
  const std::uint64_t reader = kernel().open(plane, O_RDONLY).as<fuse_open_out>().fh;
  std::string page = kernel().fill_page(view, writer, 0).body;
  EXPECT_EQ(kernel().fill_page(plane, reader, 0).body, page);
  fuse_fsync_in in{};
  in.fh = writer;
  const std::string fsync(reinterpret_cast<const char*>(&in), sizeof in);
  const auto told = [&] {
    const auto all = kernel().invalidations();
    return std::count_if(all.begin(), all.end(), [&](const auto& n) { return n.ino == plane; });
  };
  for (int i = 0; i < 2000; ++i) {
    const auto before = told();
    page.front() = static_cast<char>(page.front() + 1);
    ASSERT_EQ(kernel().write_page(view, writer, 0, page).error, 0);
    ASSERT_EQ(kernel().call(FUSE_FSYNC, view, fsync).error, 0);
    ASSERT_GT(told(), before) << i;
  }
  kernel().release(view, writer);
  kernel().release(plane, reader);
}

class KeptPagesTest : public SessionTest {
 protected:
  void SetUp() override {
    SessionTest::SetUp();
    restart(Caching::cached, true);
    door_ = make_cube();
    append_frames(door_, 2);
    plane_ = kernel().node("m/slices/xy/z0.npy");
    raw_ = kernel().node("m/cube.raw");
  }

  struct Opened {
    std::uint64_t node = 0;
    std::uint64_t handle = 0;
    bool keeps = false;  // what the kernel has of it
  };
  Opened open(std::uint64_t node, int flags = O_RDONLY) {
    const FakeKernel::Answer answer = kernel().open(node, flags);
    EXPECT_EQ(answer.error, 0);
    const auto opened = answer.as<fuse_open_out>();
    return {node, opened.fh, (opened.open_flags & FOPEN_KEEP_CACHE) != 0};
  }
  void release(const Opened& file) { EXPECT_EQ(kernel().release(file.node, file.handle).error, 0); }
  std::string fill(const Opened& file) {
    return kernel().fill_page(file.node, file.handle, 0).body;
  }
  // Opens it, has a page of it, closes it.
  void visit(std::uint64_t node) {
    const Opened file = open(node);
    EXPECT_FALSE(fill(file).empty());
    release(file);
  }
  bool keeps(std::uint64_t node) {
    const Opened file = open(node);
    release(file);
    return file.keeps;
  }
  void poke(std::uint64_t node, std::uint64_t offset, char to) {
    const Opened file = open(node, O_RDWR);
    EXPECT_EQ(kernel().write(node, file.handle, offset, std::string(1, to)).error, 0);
    EXPECT_EQ(kernel().flush(node, file.handle).error, 0);
    release(file);
  }
  std::ptrdiff_t told(std::uint64_t node) {
    const auto all = kernel().invalidations();
    return std::count_if(all.begin(), all.end(), [&](const auto& n) { return n.ino == node; });
  }

  std::uint64_t door_ = 0;
  std::uint64_t plane_ = 0;
  std::uint64_t raw_ = 0;
};

TEST_F(KeptPagesTest, PagesAreKeptFromOneOpenToTheNextUntilSomethingChanges) {
  EXPECT_FALSE(keeps(plane_)) << "it has none yet";
  EXPECT_FALSE(keeps(plane_)) << "nor has it any now";
  visit(plane_);
  EXPECT_TRUE(keeps(plane_));
  EXPECT_TRUE(keeps(plane_)) << "also when nobody has read meanwhile";
  poke(raw_, 0, '\1');
  EXPECT_FALSE(keeps(plane_));
  EXPECT_FALSE(keeps(plane_)) << "what it had is gone";
  visit(plane_);
  EXPECT_TRUE(keeps(plane_));
}

TEST_F(KeptPagesTest, PagesThatAreKeptAreWatchedAgain) {
  visit(plane_);
  const Opened file = open(plane_);
  ASSERT_TRUE(file.keeps);
  const auto before = told(plane_);
  poke(raw_, 0, '\1');
  EXPECT_GT(told(plane_), before);
  release(file);
  EXPECT_TRUE(keeps(plane_)) << "the pages that are left are right";
}

TEST_F(KeptPagesTest, ASecondOpenerKeepsOnlyWhatIsKnown) {
  visit(plane_);
  poke(raw_, 0, '\1');
  const Opened first = open(plane_);
  EXPECT_FALSE(first.keeps);
  const Opened second = open(plane_);
  EXPECT_FALSE(second.keeps) << "the first may not have dropped the pages yet";
  fill(second);
  const Opened third = open(plane_);
  EXPECT_TRUE(third.keeps);
  release(second);
  release(first);
  const Opened fourth = open(plane_);
  EXPECT_TRUE(fourth.keeps);
  release(third);
  release(fourth);
}

TEST_F(KeptPagesTest, AChangeThatIsUnderWayAtTheLastCloseIsNotMissed) {
  const Opened writer = open(raw_, O_RDWR);
  std::string page = fill(writer);
  int kept = 0;
  for (int i = 0; i < 3000; ++i) {
    const Opened reader = open(plane_);
    fill(reader);
    const auto before = told(plane_);
    page.front() = static_cast<char>(page.front() + 1);
    // The page is answered at once and published later.
    ASSERT_EQ(kernel().write_page(raw_, writer.handle, 0, page).error, 0);
    if (i % 2 != 0) ::usleep(static_cast<useconds_t>(i % 50));
    release(reader);
    if (!keeps(plane_)) continue;
    ++kept;
    ASSERT_GT(told(plane_), before) << i;
  }
  EXPECT_GT(kept, 0);
  release(writer);
}

TEST_F(KeptPagesTest, WhatFramesDoIsAChange) {
  const auto is_lost = [&](const auto& change) {
    visit(plane_);
    EXPECT_TRUE(keeps(plane_));
    change();
    return !keeps(plane_);
  };
  const std::uint64_t frames = kernel().node("m/frames");
  const std::uint64_t removed = kernel().node("m/removed");
  EXPECT_TRUE(is_lost([&] {
    EXPECT_EQ(kernel().unlink(frames, "f1.npy").error, 0);
    EXPECT_EQ(kernel().rename(removed, "f1.npy", frames, "f1.npy").error, 0);
  }));
  EXPECT_TRUE(is_lost([&] {  // replaced whole
    const std::uint64_t view = kernel().node("m/slices/xy/z0.raw");
    const Opened file = open(view, O_WRONLY);
    EXPECT_EQ(kernel().truncate(view, 0).error, 0);
    const std::string elements(nx * ny * sizeof(float), '\7');
    EXPECT_EQ(kernel().write(view, file.handle, 0, elements).error, 0);
    EXPECT_EQ(kernel().flush(view, file.handle).error, 0);
    release(file);
  }));
  EXPECT_EQ(content("m/slices/xy/z0.raw"), std::string(nx * ny * sizeof(float), '\7'));
  EXPECT_FALSE(is_lost([&] { EXPECT_EQ(kernel().unlink(frames, "none").error, ENOENT); }));
}

TEST_F(KeptPagesTest, GrowthIsAChangeOfViewsThatExtend) {
  visit(plane_);
  visit(raw_);
  EXPECT_TRUE(keeps(raw_));
  append_frames(door_, 1, 2);
  EXPECT_FALSE(keeps(raw_));
  EXPECT_TRUE(keeps(plane_));
}

TEST_F(KeptPagesTest, WhoeverOpensForWritingDropsThePages) {
  visit(plane_);
  const Opened writer = open(plane_, O_RDWR);
  EXPECT_FALSE(writer.keeps);
  EXPECT_FALSE(keeps(plane_)) << "it may not have dropped them yet";
  release(writer);
  EXPECT_FALSE(keeps(plane_));
}

TEST_F(KeptPagesTest, PagesOfFramesAreNotKept) {
  const std::uint64_t frame = kernel().node("m/frames/f0.npy");
  const Opened first = open(frame);
  fill(first);
  EXPECT_FALSE(keeps(frame));
  release(first);
  EXPECT_FALSE(keeps(frame));
}

TEST_F(KeptPagesTest, PagesOfWhatTheCubeHasNoMoreAreNotKept) {
  const auto copy_wide = [&](const char* name) {
    ASSERT_EQ(copy(door_, name, npy_frame(nx + 3, ny, 1000)), 0);
  };
  copy_wide("wide.npy");
  // A strip holds index 2 of z when that frame goes.
  std::string strip = npy_frame(nx, 3, 2000);
  strip.replace(strip.find("(3, 5), }   "), 12, "(3, 1, 5), }");
  ASSERT_EQ(copy(kernel().node("m/append/y"), "strip.npy", strip), 0);
  const std::uint64_t line = kernel().node("m/slices/y/x7_z2.npy");
  const Opened reader = open(line);
  const std::string was = fill(reader);
  EXPECT_EQ(floats(was.substr(was.size() - 4 * sizeof(float)))[0], 1007.0f);
  ASSERT_EQ(kernel().unlink(kernel().node("m/frames"), "wide.npy").error, 0);
  EXPECT_EQ(kernel().open(line, O_RDONLY).error, ESTALE);
  EXPECT_EQ(fill(reader), was) << "it shows what it did";
  release(reader);
  copy_wide("wider.npy");
  ASSERT_EQ(kernel().node("m/slices/y/x7_z2.npy"), line) << "the index is back, with pad";
  const Opened again = open(line);
  EXPECT_FALSE(again.keeps);
  EXPECT_NE(fill(again), was);
  release(again);
}

TEST_F(SessionTest, AForgottenNumberMeansNothingAndIsNotUsedAgain) {
  append_frames(make_cube(), 1);
  const std::uint64_t node = kernel().node("m/slices/xy/z0.raw");
  const std::uint64_t again = kernel().node("m/slices/xy/z0.raw");
  ASSERT_EQ(node, again);
  kernel().forget(node, 1);
  EXPECT_EQ(kernel().getattr(node).error, 0) << "one look-up is left";
  kernel().forget(node, 1);
  // A FORGET has no answer; another request on the same thread pool may overtake it.
  for (int i = 0; i < 1000 && kernel().getattr(node).error == 0; ++i) ::usleep(1000);
  EXPECT_EQ(kernel().getattr(node).error, ESTALE);
  const std::uint64_t fresh = kernel().node("m/slices/xy/z0.raw");
  EXPECT_NE(fresh, node);
  EXPECT_EQ(kernel().getattr(fresh).error, 0);
}

TEST_F(SessionTest, WhatIsNotPossibleIsRefusedAndTold) {
  const std::uint64_t door = make_cube();
  append_frames(door, 1);
  const std::uint64_t view = kernel().node("m/slices/xy/z0.raw");
  const std::uint64_t planes = kernel().node("m/slices/xy");
  EXPECT_EQ(kernel().open(kernel().node("m/mask/xy/z0.raw"), O_RDWR).error, EROFS);
  EXPECT_EQ(kernel().truncate(view, 0).error, EPERM);
  EXPECT_EQ(kernel().unlink(planes, "z0.raw").error, EPERM);
  EXPECT_EQ(kernel().create(planes, "new.raw").error, EPERM);
  EXPECT_EQ(kernel().rename(planes, "z0.raw", planes, "z1.raw").error, EPERM);
  EXPECT_EQ(kernel().mkdir(door, "sub").error, EPERM);
  EXPECT_EQ(kernel().unlink(kernel().node("m/insert"), "z").error, EPERM);
  EXPECT_EQ(kernel().unlink(door, "nothing").error, ENOENT);
  EXPECT_EQ(kernel().open(kernel().node("m/meta/shape"), O_WRONLY).error, EPERM);
  EXPECT_EQ(kernel().call(FUSE_SYMLINK, door, std::string("l\0t\0", 4)).error, EPERM);
  EXPECT_EQ(kernel().create(door, "z").error, EINVAL);
  EXPECT_EQ(kernel().create(door, std::string(256, 'a')).error, ENAMETOOLONG);
  EXPECT_EQ(kernel().create(door, "a\nb").error, EINVAL);
  EXPECT_EQ(kernel().call(FUSE_RMDIR, FUSE_ROOT_ID, std::string("m\0", 2)).error, ENOTEMPTY);
  EXPECT_EQ(content("m/meta/shape"), "5 3 1\n");
  const std::string history = content("m/history");
  EXPECT_NE(history.find("EROFS"), std::string::npos);
  EXPECT_NE(history.find("EPERM"), std::string::npos);
}

TEST_F(SessionTest, AttributesHoldForShellToolsAndTar) {
  append_frames(make_cube(), 2);
  for (const char* path : {"m/slices/xy/z0.npy", "m/cube.raw", "m/frames/f0.npy"}) {
    const auto attr = kernel().getattr(kernel().node(path)).as<fuse_attr_out>().attr;
    EXPECT_GT(attr.blocks, 0u) << path;
    EXPECT_EQ(attr.blksize, 4096u) << path;
    EXPECT_EQ(attr.size, content(path).size()) << path;
  }
  const auto frame = kernel().getattr(kernel().node("m/frames/f0.npy")).as<fuse_attr_out>().attr;
  EXPECT_EQ(frame.mode, static_cast<std::uint32_t>(S_IFREG | 0640));
}

TEST_F(SessionTest, ManyWritersAtOnceAreAllTakenAndEachRequestIsAnsweredOnce) {
  const std::uint64_t door = make_cube();
  append_frames(door, 1);
  constexpr unsigned writers = 6, frames = 8;
  std::vector<std::thread> threads;
  for (unsigned w = 0; w < writers; ++w) {
    threads.emplace_back([&, w] {
      for (unsigned i = 0; i < frames; ++i) {
        const std::string name = "w" + std::to_string(w) + "-" + std::to_string(i);
        EXPECT_EQ(copy(door, name, npy_frame(nx, ny, static_cast<float>((w + 1) * 1000 + i))), 0);
      }
    });
  }
  for (int i = 0; i < 50; ++i) content("m/cube.npy");
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(content("m/meta/shape"), "5 3 " + std::to_string(writers * frames + 1) + "\n");
  std::set<float> firsts;
  for (unsigned z = 0; z <= writers * frames; ++z)
    firsts.insert(floats(content("m/slices/xy/z" + std::to_string(z) + ".raw")).at(0));
  EXPECT_EQ(firsts.size(), writers * frames + 1u);
}

TEST_F(SessionTest, OpenFilesAtTheEndOfTheSessionAreDropped) {
  const std::uint64_t door = make_cube();
  append_frames(door, 1);
  const Incoming half = create(door, "half.npy");
  EXPECT_EQ(write(half, 0, npy_frame(nx, ny, 1).substr(0, 150)), 0);
  EXPECT_EQ(kernel().open(kernel().node("m/cube.fits"), O_RDONLY).error, 0);
  EXPECT_EQ(kernel().opendir(kernel().node("m/slices/xy")).error, 0);
  restart(Caching::automatic, true);
  EXPECT_EQ(content("m/meta/shape"), "5 3 1\n");
}

}  // namespace
}  // namespace accrete
