#include "fs/holders.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>

namespace accrete {
namespace {

class HoldersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = "/tmp/accrete-held-XXXXXX";
    fd_ = ::mkstemp(path.data());
    ASSERT_GE(fd_, 0);
    ::unlink(path.c_str());
    struct stat attributes {};
    ASSERT_EQ(::fstat(fd_, &attributes), 0);
    ino_ = attributes.st_ino;
  }
  void TearDown() override {
    if (fd_ >= 0) ::close(fd_);
  }
  bool held_by(pid_t pid) const { return is_held(pid, std::array<std::uint64_t, 1>{ino_}); }

  int fd_ = -1;
  std::uint64_t ino_ = 0;
};

TEST_F(HoldersTest, AProcessHoldsWhatItHasOpen) {
  EXPECT_TRUE(held_by(::getpid()));
  ::close(std::exchange(fd_, -1));
  EXPECT_FALSE(held_by(::getpid()));
}

TEST_F(HoldersTest, AnAncestorCountsAndADescendantDoesNot) {
  int ready[2], finish[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(finish), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::close(fd_);
    ::close(finish[1]);
    char byte = 0;
    (void)!::write(ready[1], &byte, 1);
    (void)!::read(finish[0], &byte, 1);
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_TRUE(held_by(child)) << "by this process, its parent";
  ::close(std::exchange(fd_, -1));
  EXPECT_FALSE(held_by(child));
  for (const int fd : {ready[0], ready[1], finish[0], finish[1]}) ::close(fd);
  ::waitpid(child, nullptr, 0);
}

TEST_F(HoldersTest, AProcessThatIsNotThereHoldsNothing) {
  EXPECT_FALSE(held_by(0));
  EXPECT_FALSE(held_by(0x3fffffff));
}

}  // namespace
}  // namespace accrete
