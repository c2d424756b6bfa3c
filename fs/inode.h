// Numbers of inodes: those that the kernel uses to talk to us, and those that users see.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace accrete {

// A node number is a slot of the node table and how often that slot was used before; so a number
// is never used again. Slot 1 at its first use is FUSE_ROOT_ID.
struct NodeNumber {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;

  static NodeNumber from(std::uint64_t number) {
    return {static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32)};
  }
  std::uint64_t number() const { return std::uint64_t{generation} << 32 | slot; }
};

// What kinds of things an identity tells apart; its first word.
enum class NodeKind : std::uint64_t {
  root,
  cube,
  door,
  insert,
  frames,
  removed,
  slices,
  axes,
  meta,
  property,
  history,
  last_error,
  link,
  view,
  frame,
  staging,
};

// What makes an inode itself: two names with equal identities are one inode. The canonical words
// are the key in the node table, in groups of seven bits, the lowest first, of which all but the
// last have the highest bit set (most words are small); their hash is st_ino.
class Identity {
 public:
  explicit Identity(NodeKind kind) { add(static_cast<std::uint64_t>(kind)); }

  Identity& add(std::uint64_t word) {
    for (; word >= 0x80; word >>= 7) key_.push_back(static_cast<char>(word | 0x80));
    key_.push_back(static_cast<char>(word));
    return *this;
  }
  Identity& add(std::string_view text) {
    add(std::uint64_t{text.size()});
    key_.append(text);
    return *this;
  }

  const std::string& key() const { return key_; }
  // FNV-1a with a final mix. Never 0 or FUSE_ROOT_ID.
  std::uint64_t ino() const { return hash(key_); }

  static std::uint64_t hash(std::string_view text) {
    std::uint64_t h = 0xcbf29ce484222325u;
    for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    return h < 2 ? h + 2 : h;
  }

 private:
  std::string key_;
};

}  // namespace accrete
