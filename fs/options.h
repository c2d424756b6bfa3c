// The command line.
#pragma once

#include <string>
#include <vector>

#include "core/store.h"
#include "fs/tree.h"

namespace accrete {

struct Options {
  bool help = false;
  bool version = false;
  bool foreground = false;
  bool debug = false;
  std::string store;
  std::string mount_point;
  Caching caching = Caching::automatic;
  Limits limits;
  unsigned threads = 0;                    // 0: as fits the machine
  std::vector<std::string> mount_options;  // for libfuse and the kernel, each as for -o
};

// EINVAL with a sentence for what is not understood. Options of the mount itself are not checked.
Result<Options> parse_options(const std::vector<std::string>& arguments);

// "64M" -> bytes; K, M, G and T are powers of 1024.
Result<std::uint64_t> parse_bytes(std::string_view text);

std::string help_text();

}  // namespace accrete
