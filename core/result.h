// Errors as values: what a call gives back is a value or one sentence with its errno.
#pragma once

#include <string>
#include <system_error>
#include <utility>
#include <variant>

namespace accrete {

// Why an operation was refused: the errno a caller sees and one sentence a person reads.
struct Error {
  std::errc code;
  std::string sentence;

  int number() const { return static_cast<int>(code); }
};

inline Error fail(std::errc code, std::string sentence) { return Error{code, std::move(sentence)}; }

// An Error from errno after a failed system call; `what` names the call and its object.
Error fail_errno(int error_number, const std::string& what);

// A T or an Error. Reading the one that is not there is a bug and throws std::bad_variant_access.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), ok_(false) {}

  bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  const Error& error() const& { return error_; }
  Error&& error() && { return std::move(error_); }

 private:
  Error error_{};
  bool ok_ = true;
};

using Status = Result<void>;

#define ACCRETE_CONCAT_(a, b) a##b
#define ACCRETE_CONCAT(a, b) ACCRETE_CONCAT_(a, b)

// ACCRETE_TRY(auto x, call()): x becomes the value, or the enclosing function returns the error.
#define ACCRETE_TRY(declaration, expression)                                     \
  auto ACCRETE_CONCAT(result_, __LINE__) = (expression);                         \
  if (!ACCRETE_CONCAT(result_, __LINE__).ok())                                   \
    return std::move(ACCRETE_CONCAT(result_, __LINE__)).error();                 \
  declaration = std::move(ACCRETE_CONCAT(result_, __LINE__)).value()

// ACCRETE_CHECK(call()): as above for a Status.
#define ACCRETE_CHECK(expression)                                                \
  do {                                                                           \
    auto status_ = (expression);                                                 \
    if (!status_.ok()) return std::move(status_).error();                        \
  } while (false)

}  // namespace accrete
