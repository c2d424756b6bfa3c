#include "fs/node.h"

#include <fcntl.h>

namespace accrete {

namespace {

Error not_permitted(const char* what) {
  return fail(std::errc::operation_not_permitted, std::string(what) + " is not possible here");
}

}  // namespace

bool opens_for_writing(int flags) {
  return (flags & O_ACCMODE) != O_RDONLY;
}

void OpenFile::read(Reply reply, std::uint64_t, std::size_t, bool) {
  reply.error(EBADF);
}

void OpenFile::write(Reply reply, std::uint64_t, std::span<const std::byte>, WriteManner) {
  reply.error(EBADF);
}

Result<bool> Node::change_attributes(const AttributeChange&) {
  return not_permitted("changing size, mode, owner or times");
}

Result<std::shared_ptr<Node>> Node::find(std::string_view) {
  return fail(std::errc::not_a_directory, "not a directory");
}

Result<std::unique_ptr<Listing>> Node::list() {
  return fail(std::errc::not_a_directory, "not a directory");
}

Result<std::shared_ptr<Node>> Node::make_directory(std::string_view) {
  return not_permitted("making a directory");
}

Status Node::remove_directory(std::string_view) {
  return not_permitted("removing a directory");
}

Result<Created> Node::create(std::string_view, mode_t, bool, const Caller&) {
  return not_permitted("making a file");
}

Status Node::unlink(std::shared_ptr<Reply>, std::string_view) {
  return not_permitted("removing this");
}

Status Node::rename(std::shared_ptr<Reply>, std::string_view, Node&, std::string_view, bool) {
  return not_permitted("renaming this");
}

Result<std::unique_ptr<OpenFile>> Node::open(int, const Caller&) {
  return fail(std::errc::is_a_directory, "this is a directory");
}

Result<std::string> Node::link_target() {
  return fail(std::errc::invalid_argument, "not a symbolic link");
}

}  // namespace accrete
