#include "fs/options.h"

#include <gtest/gtest.h>

namespace accrete {
namespace {

TEST(Options, StoreAndMountPointMayStandAnywhere) {
  const auto options = parse_options({"-f", "store", "-o", "ro,allow_other", "mnt"});
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->store, "store");
  EXPECT_EQ(options->mount_point, "mnt");
  EXPECT_TRUE(options->foreground);
  EXPECT_EQ(options->mount_options, (std::vector<std::string>{"ro", "allow_other"}));
}

TEST(Options, OwnOptionsAreTakenAndThoseOfMountFuseDropped) {
  const auto options =
      parse_options({"s", "m", "-oio=cached,max_frame=2G,dev,suid", "-o", "threads=7,max_cube=5T"});
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->caching, Caching::cached);
  EXPECT_EQ(options->limits.max_frame, std::uint64_t{2} << 30);
  EXPECT_EQ(options->limits.max_cube, std::uint64_t{5} << 40);
  EXPECT_EQ(options->threads, 7u);
  EXPECT_TRUE(options->mount_options.empty());
}

TEST(Options, ACommaAfterABackslashEndsNoOption) {
  const auto options = parse_options({"s", "m", "-o", "context=a\\,b,ro"});
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->mount_options, (std::vector<std::string>{"context=a\\,b", "ro"}));
}

TEST(Options, WhatIsNotUnderstoodIsRefused) {
  const std::vector<std::vector<std::string>> cases{{},
                                                    {"s"},
                                                    {"a", "b", "c"},
                                                    {"-x", "s", "m"},
                                                    {"s", "m", "-o"},
                                                    {"s", "m", "-o", "io=fast"},
                                                    {"s", "m", "-o", "threads=1"},
                                                    {"s", "m", "-o", "max_frame=12Q"}};
  for (const auto& arguments : cases) EXPECT_FALSE(parse_options(arguments).ok());
}

TEST(Options, BytesHaveSuffixes) {
  EXPECT_EQ(*parse_bytes("4096"), 4096u);
  EXPECT_EQ(*parse_bytes("3K"), 3072u);
  EXPECT_EQ(*parse_bytes("1T"), std::uint64_t{1} << 40);
  for (const char* text : {"", "K", "1KK", "-1", "1 M", "99999999999999999999", "99999999999T"})
    EXPECT_FALSE(parse_bytes(text).ok()) << text;
}

}  // namespace
}  // namespace accrete
