#include "core/result.h"

namespace accrete {

Error fail_errno(int error_number, const std::string& what) {
  const std::error_code code(error_number, std::generic_category());
  return Error{static_cast<std::errc>(error_number), what + ": " + code.message()};
}

}  // namespace accrete
