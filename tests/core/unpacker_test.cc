#include "core/unpacker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/bytes.h"
#include "core/fits_card.h"
#include "core/posix_file.h"
#include "tests/core/gzip.h"

namespace accrete {
namespace {

using testing::gzip;

using namespace std::chrono_literals;

constexpr char program[] = ACCRETE_UNPACK_PROGRAM;
constexpr std::uint64_t plenty = std::uint64_t{1} << 40;

PosixFile temporary() {
  auto directory = PosixFile::open("/tmp", O_RDONLY | O_DIRECTORY);
  return PosixFile::unnamed_in(directory.value()).value();
}

PosixFile file_of(std::string_view content) {
  PosixFile file = temporary();
  EXPECT_TRUE(file.write(0, as_bytes(content)).ok());
  return file;
}

std::string content_of(const PosixFile& file) {
  std::string content(file.size().value(), '\0');
  EXPECT_TRUE(file.read(0, std::as_writable_bytes(std::span(content))).ok());
  return content;
}

// A gzip file that takes long to unpack, for it becomes so many times 16 MiB.
std::string slow_gzip(int members = 256) {
  const std::string member = gzip(std::string(std::size_t{16} << 20, 'x'));
  std::string all;
  for (int i = 0; i < members; ++i) all += member;
  return all;
}

std::string header_of(const std::vector<std::string>& cards) {
  std::string text;
  for (const std::string& card : cards)
    text += card, text.resize(text.size() + card_length - card.size(), ' ');
  text += "END";
  text.resize((text.size() + fits_block - 1) / fits_block * fits_block, ' ');
  return text;
}

// A file whose HDU 1 is an image of 2 rows with 3 16-bit pixels, each row a tile.
std::string tiled_image(std::string_view row0, std::string_view row1) {
  const std::string tiles[] = {gzip(row0), gzip(row1)};
  const auto size0 = static_cast<char>(tiles[0].size());
  const auto size1 = static_cast<char>(tiles[1].size());
  std::string data{0, 0, 0, size0, 0, 0, 0, 0, 0, 0, 0, size1, 0, 0, 0, size0};
  data += tiles[0] + tiles[1];
  const std::string heap = std::to_string(data.size() - 16);
  data.resize(fits_block, '\0');
  return header_of({make_logical_card("SIMPLE", true, ""), make_integer_card("BITPIX", 8, ""),
                    make_integer_card("NAXIS", 0, "")}) +
         header_of({"XTENSION= 'BINTABLE'", make_integer_card("BITPIX", 8, ""),
                    make_integer_card("NAXIS", 2, ""), make_integer_card("NAXIS1", 8, ""),
                    make_integer_card("NAXIS2", 2, ""), make_card("PCOUNT", heap, ""),
                    make_integer_card("GCOUNT", 1, ""), make_integer_card("TFIELDS", 1, ""),
                    "TTYPE1  = 'COMPRESSED_DATA'", "TFORM1  = '1PB'",
                    make_logical_card("ZIMAGE", true, ""), "ZCMPTYPE= 'GZIP_1'",
                    make_integer_card("ZBITPIX", 16, ""), make_integer_card("ZNAXIS", 2, ""),
                    make_integer_card("ZNAXIS1", 3, ""), make_integer_card("ZNAXIS2", 2, ""),
                    "OBJECT  = 'M42'"}) +
         data;
}

// The processes that this one has started and not yet waited for.
std::vector<pid_t> children() {
  std::vector<pid_t> found;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream list(task.path() / "children");
    for (pid_t child = 0; list >> child;) found.push_back(child);
  }
  return found;
}

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator entries("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

// Starts a thread that kills the only child as soon as there is one.
std::thread killer(std::chrono::milliseconds after, int signal_number) {
  return std::thread([=] {
    while (children().empty()) std::this_thread::sleep_for(1ms);
    std::this_thread::sleep_for(after);
    ASSERT_EQ(children().size(), 1U);
    ::kill(children().front(), signal_number);
  });
}

void expect_inflates(Unpacker& unpacker, std::string_view content) {
  const PosixFile from = file_of(gzip(content));
  const PosixFile to = temporary();
  const auto length = unpacker.inflate(from.fd(), to.fd(), plenty, plenty);
  ASSERT_TRUE(length.ok()) << length.error().sentence;
  EXPECT_EQ(*length, content.size());
  EXPECT_EQ(content_of(to), content);
}

TEST(Unpacker, InflatesAndKeepsTheFirstBytes) {
  Unpacker unpacker(program);
  expect_inflates(unpacker, "some content");
  expect_inflates(unpacker, "");
  const PosixFile from = file_of(gzip("0123456789") + gzip("abc") + std::string(512, '\0'));
  const PosixFile to = file_of("what was there before, and longer");
  EXPECT_EQ(unpacker.inflate(from.fd(), to.fd(), 12, plenty).value(), 13U);
  EXPECT_EQ(content_of(to), "0123456789ab");
  EXPECT_EQ(unpacker.inflate(from.fd(), to.fd(), 0, 13).value(), 13U);
  EXPECT_EQ(content_of(to), "");
}

TEST(Unpacker, RefusesDamagedFilesAndGoesOn) {
  Unpacker unpacker(program);
  const std::string packed = gzip("some content");
  std::string damaged = packed;
  damaged[damaged.size() - 6] ^= 1;
  const struct {
    std::string content, sentence;
    std::errc code;
    std::uint64_t most;
  } cases[] = {
      {packed.substr(0, 20), "the gzip file is truncated", std::errc::invalid_argument, plenty},
      {damaged, "the gzip file is damaged", std::errc::invalid_argument, plenty},
      {packed + "x", "the gzip file is damaged", std::errc::invalid_argument, plenty},
      {packed, "the file unpacks to more than 11 bytes", std::errc::file_too_large, 11}};
  for (const auto& [content, sentence, code, most] : cases) {
    const PosixFile from = file_of(content);
    const PosixFile to = temporary();
    const auto length = unpacker.inflate(from.fd(), to.fd(), plenty, most);
    ASSERT_FALSE(length.ok());
    EXPECT_EQ(length.error().code, code);
    EXPECT_EQ(length.error().sentence.substr(0, sentence.size()), sentence);
  }
  EXPECT_EQ(children().size(), 1U);
  expect_inflates(unpacker, "some content");
}

TEST(Unpacker, Decompresses) {
  Unpacker unpacker(program);
  const PosixFile from = file_of(tiled_image("ABCDEF", "GHIJKL"));
  const PosixFile to = temporary();
  const auto length = unpacker.decompress(from.fd(), to.fd(), 1, plenty);
  ASSERT_TRUE(length.ok()) << length.error().sentence;
  std::string expected =
      header_of({make_logical_card("SIMPLE", true, ""), make_integer_card("BITPIX", 16, ""),
                 make_integer_card("NAXIS", 2, ""), make_integer_card("NAXIS1", 3, ""),
                 make_integer_card("NAXIS2", 2, ""), "OBJECT  = 'M42'"}) +
      "ABCDEFGHIJKL";
  expected.resize(2 * fits_block, '\0');
  EXPECT_EQ(*length, expected.size());
  EXPECT_EQ(content_of(to), expected);

  const auto primary = unpacker.decompress(from.fd(), to.fd(), 0, plenty);
  ASSERT_FALSE(primary.ok());
  EXPECT_EQ(primary.error().sentence, "HDU 0 is no tile-compressed image");
  const auto bounded = unpacker.decompress(from.fd(), to.fd(), 1, 2 * fits_block - 1);
  ASSERT_FALSE(bounded.ok());
  EXPECT_EQ(bounded.error().code, std::errc::file_too_large);
  const PosixFile damaged = file_of(tiled_image("ABCDEF", "GHIJK"));
  const auto refused = unpacker.decompress(damaged.fd(), to.fd(), 1, plenty);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, std::errc::invalid_argument);
}

TEST(Unpacker, DeathIsAnErrorOfOneFile) {
  Unpacker unpacker(program);
  const PosixFile slow = file_of(slow_gzip());
  const PosixFile to = temporary();
  expect_inflates(unpacker, "the first file");
  for (const int signal_number : {SIGKILL, SIGTERM}) {
    std::thread thread = killer(100ms, signal_number);
    const auto length = unpacker.inflate(slow.fd(), to.fd(), 0, plenty);
    thread.join();
    ASSERT_FALSE(length.ok());
    EXPECT_EQ(length.error().code, std::errc::invalid_argument);
    EXPECT_EQ(length.error().sentence,
              "the file could not be unpacked: the unpacking process died (signal " +
                  std::to_string(signal_number) + ")");
    EXPECT_TRUE(children().empty());
    expect_inflates(unpacker, "the next file");
  }
}

TEST(Unpacker, DeathBetweenFilesIsNoError) {
  Unpacker unpacker(program);
  for (int i = 0; i < 3; ++i) {
    expect_inflates(unpacker, "content");
    const pid_t child = children().front();
    ::kill(child, SIGKILL);
    siginfo_t ended{};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT), 0);
  }
}

TEST(Unpacker, TakesNoLongerThanItsPatience) {
  // A stopped process comes no further, as one that goes round in circles.
  Unpacker unpacker(program, 5s);
  const PosixFile slow = file_of(slow_gzip(64));
  const PosixFile to = temporary();
  expect_inflates(unpacker, "before");
  std::thread thread = killer(50ms, SIGSTOP);
  const auto length = unpacker.inflate(slow.fd(), to.fd(), 0, plenty);
  thread.join();
  ASSERT_FALSE(length.ok());
  EXPECT_EQ(length.error().code, std::errc::invalid_argument);
  EXPECT_EQ(length.error().sentence, "the file could not be unpacked: it took too long");
  EXPECT_TRUE(children().empty());
  expect_inflates(unpacker, "the next file");
}

TEST(Unpacker, OutlivesTheThreadThatAskedFirst) {
  Unpacker unpacker(program);
  std::thread([&] { expect_inflates(unpacker, "first"); }).join();
  const std::vector<pid_t> before = children();
  for (int i = 0; i < 10; ++i) expect_inflates(unpacker, "next");
  EXPECT_EQ(before.size(), 1U);
  EXPECT_EQ(children(), before);
}

// A program that says `messages` when it is asked, in the words of core/unpack_protocol.h.
std::string liar(const std::string& messages) {
  const std::string path = ::testing::TempDir() + "liar" + std::to_string(::getpid());
  std::ofstream(path) << "#!/usr/bin/python3\n"
                         "import socket, struct\n"
                         "READY, PIECE, DONE, REFUSED = 1, 2, 3, 4\n"
                         "channel = socket.socket(fileno=0)\n"
                         "def say(tell, error, number, data=b''):\n"
                         "    channel.send(struct.pack('=IiQ', tell, error, number) + data)\n"
                         "say(READY, 0, 0)\n"
                         "channel.recv(1000)\n"
                      << messages << "\nchannel.recv(1000)\n";
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  return path;
}

TEST(Unpacker, BelievesNothingThatCannotBe) {
  const PosixFile from = file_of(gzip("x"));
  const PosixFile to = temporary();
  for (const std::string messages :
       {"say(PIECE, 0, 6, b'xxxxx')", "say(PIECE, 0, 2**64 - 1, b'xx')", "say(PIECE, 0, 21)",
        "say(DONE, 0, 21)", "say(DONE, 0, 1, b'x')", "say(REFUSED, 0, 0, b'why')",
        "say(REFUSED, -5, 0, b'why')", "say(REFUSED, 4096, 0, b'why')", "say(REFUSED, 22, 0)",
        "say(REFUSED, 22, 0, b'a\\nb')", "say(REFUSED, 22, 0, b'x' * 241)", "say(READY, 0, 0)",
        "say(9, 0, 0)", "channel.send(b'nonsense')", "say(PIECE, 0, 0, bytes(65537))"}) {
    SCOPED_TRACE(messages);
    Unpacker unpacker(liar(messages));
    const auto length = unpacker.inflate(from.fd(), to.fd(), 10, 20);
    ASSERT_FALSE(length.ok());
    EXPECT_EQ(length.error().code, std::errc::io_error);
    EXPECT_EQ(length.error().sentence, "the unpacking process gave a strange answer");
    EXPECT_TRUE(children().empty());
    EXPECT_LE(to.size().value(), 10U);
  }
  Unpacker unpacker(liar("say(PIECE, 0, 4, b'abc')\nsay(PIECE, 0, 20)\nsay(DONE, 0, 12)"));
  EXPECT_EQ(unpacker.inflate(from.fd(), to.fd(), 10, 20).value(), 12U);
  EXPECT_EQ(content_of(to), std::string("\0\0\0\0abc\0\0\0", 10));
}

TEST(Unpacker, ErrorsOfTheFileToFill) {
  Unpacker unpacker(program);
  const PosixFile from = file_of(gzip(std::string(1'000'000, 'x')));
  const int read_only = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_FALSE(unpacker.inflate(from.fd(), read_only, plenty, plenty).ok());
  ::close(read_only);
  expect_inflates(unpacker, "the next file");
}

TEST(Unpacker, ProgramsThatAreNone) {
  const PosixFile from = file_of(gzip("x"));
  const PosixFile to = temporary();
  const auto error_with = [&](const std::string& path) {
    Unpacker unpacker(path);
    return unpacker.inflate(from.fd(), to.fd(), plenty, plenty).error();
  };
  EXPECT_EQ(error_with("/nonexistent/program").code, std::errc::io_error);
  EXPECT_EQ(error_with("/nonexistent/program").sentence,
            "the unpacking process /nonexistent/program could not be started: No such file or "
            "directory");
  EXPECT_EQ(error_with("/dev/null").code, std::errc::io_error);
  EXPECT_EQ(error_with("/bin/true").code, std::errc::io_error);
  EXPECT_EQ(error_with("/bin/true").sentence,
            "the unpacking process /bin/true could not be started: the unpacking process died "
            "(exit status 0)");
  EXPECT_TRUE(children().empty());
}

TEST(Unpacker, ThreadsWaitForEachOther) {
  Unpacker unpacker(program);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&unpacker, i] {
      for (int n = 0; n < 20; ++n)
        expect_inflates(
            unpacker, std::string(1000 * static_cast<std::size_t>(n), static_cast<char>('a' + i)));
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(children().size(), 1U);
}

// A stack of more than all address space is as good as no thread.
TEST(Unpacker, WithoutAThreadItIsAnErrorAndTriedAgain) {
  Unpacker unpacker(program);
  const PosixFile from = file_of(gzip("content"));
  const PosixFile to = temporary();
  pthread_attr_t usual, huge;
  pthread_getattr_default_np(&usual);
  pthread_attr_init(&huge);
  pthread_attr_setstacksize(&huge, std::size_t{1} << 48);
  ASSERT_EQ(pthread_setattr_default_np(&huge), 0);
  const auto length = unpacker.inflate(from.fd(), to.fd(), plenty, plenty);
  pthread_setattr_default_np(&usual);
  pthread_attr_destroy(&usual);
  pthread_attr_destroy(&huge);
  ASSERT_FALSE(length.ok());
  EXPECT_EQ(length.error().code, std::errc::resource_unavailable_try_again);
  expect_inflates(unpacker, "content");
}

TEST(Unpacker, LeavesNothingBehind) {
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 3; ++i) {
    Unpacker unpacker(program);
    if (i > 0) expect_inflates(unpacker, "content");
    EXPECT_EQ(children().size(), i > 0 ? 1U : 0U);
  }
  EXPECT_TRUE(children().empty());
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Unpacker, ProcessHasOnlyItsSocketAndNothingToWriteTo) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root sees what such a process has open";
  const PosixFile other = temporary();
  const int inherited = ::dup(other.fd());  // without O_CLOEXEC
  Unpacker unpacker(program);
  expect_inflates(unpacker, "content");
  const std::filesystem::path process = "/proc/" + std::to_string(children().front());
  const auto open = [&] {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(process / "fd"))
      found.push_back(entry.path().filename());
    return found.size();
  };
  EXPECT_EQ(open(), 3U);
  ::close(inherited);

  // While it unpacks it has the file too, for reading only.
  const PosixFile slow = file_of(slow_gzip());
  const PosixFile to = temporary();
  std::thread thread([&] { EXPECT_FALSE(unpacker.inflate(slow.fd(), to.fd(), 0, plenty).ok()); });
  while (open() < 4) std::this_thread::sleep_for(1ms);
  std::ifstream info(process / "fdinfo/3");
  std::string key, flags;
  while (info >> key && key != "flags:") {
  }
  info >> flags;
  ::kill(children().front(), SIGKILL);
  thread.join();
  EXPECT_EQ(std::stoi(flags, nullptr, 8) & O_ACCMODE, O_RDONLY) << flags;
}

TEST(Unpacker, DefaultProgramIsBesideThisOne) {
  const char* const set = std::getenv("ACCRETE_UNPACK");
  const std::string before = set != nullptr ? set : "";
  ::unsetenv("ACCRETE_UNPACK");
  EXPECT_EQ(Unpacker::default_program(),
            std::filesystem::read_symlink("/proc/self/exe").parent_path() / "accretefs-unpack");
  ::setenv("ACCRETE_UNPACK", "/elsewhere/program", 1);
  EXPECT_EQ(Unpacker::default_program(), "/elsewhere/program");
  ::unsetenv("ACCRETE_UNPACK");
  if (set != nullptr) ::setenv("ACCRETE_UNPACK", before.c_str(), 1);
}

}  // namespace
}  // namespace accrete
