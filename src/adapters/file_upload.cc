#include "src/adapters/file_upload.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/logging.h"
#include "src/base/printable.h"
#include "src/base/resource_name.h"
#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

bool IsSha256(absl::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

using TakenSpace = std::unique_ptr<UploadSpace, std::function<void(UploadSpace*)>>;

class FileUpload final : public AdapterUpload {
 public:
  FileUpload(UploadHeader header, const AdapterWriter& writer, TakenSpace space, IncomingFile file, UploadSteps steps)
      : header_(std::move(header)),
        writer_(writer),
        space_(std::move(space)),
        file_(std::move(file)),
        steps_(std::move(steps)) {}

  absl::Status Append(absl::string_view bytes) override {
    received_ += bytes.size();
    if (received_ > header_.size) {
      return WrongSize("more bytes came");
    }
    ABSL_RETURN_IF_ERROR(file_.Append(bytes));
    hash_.Update(bytes.data(), bytes.size());
    return absl::OkStatus();
  }

  absl::StatusOr<AdapterInfo> Commit() override {
    if (received_ != header_.size) {
      return WrongSize(absl::StrCat(received_, " came"));
    }
    if (const std::string digest = hash_.HexDigest(); digest != header_.sha256) {
      return MakeError(absl::StatusCode::kInvalidArgument, error_reason::kUploadChecksum,
                       absl::StrCat("the bytes have sha256 ", digest, "; the header says ", header_.sha256));
    }
    ABSL_RETURN_IF_ERROR(file_.Finish());
    const absl::StatusOr<AdapterInfo> checked = steps_.check(header_.name, file_.number());
    if (absl::IsFailedPrecondition(checked.status())) {
      // In a request the file is at fault, here the call that brought it.
      return MakeError(absl::StatusCode::kInvalidArgument, checked.status().message(),
                       GetErrorDetails(checked.status()));
    }
    ABSL_RETURN_IF_ERROR(checked.status());
    ABSL_RETURN_IF_ERROR(writer_.Commit(file_, header_.name, header_.replace));
    LogInfo(writer_.kind().noun, " ", PrintableName(header_.name), " uploaded: ", header_.size, " bytes, sha256 ",
            header_.sha256);
    return steps_.committed(*checked);
  }

 private:
  absl::Status WrongSize(absl::string_view what) const {
    return MakeError(absl::StatusCode::kInvalidArgument, error_reason::kUploadSize,
                     absl::StrCat("the header says ", header_.size, " bytes; ", what));
  }

  const UploadHeader header_;
  const AdapterWriter& writer_;
  const TakenSpace space_;  // given back after the file is gone
  IncomingFile file_;
  const UploadSteps steps_;
  uint64_t received_ = 0;
  Sha256 hash_;
};

}  // namespace

absl::Status CheckHeader(UploadHeader& header) {
  std::vector<FieldViolation> violations;
  if (absl::StatusOr<std::string> name = NormalizeName(header.name); name.ok()) {
    header.name = *std::move(name);
  } else {
    violations.push_back({"header.name", std::string(name.status().message())});
  }
  if (header.size == 0) {
    violations.push_back({"header.size", "is 0 or unset; it is the number of bytes that follow"});
  }
  if (!IsSha256(header.sha256)) {
    violations.push_back({"header.sha256", "is not 64 lower-case hexadecimal digits"});
  }
  return violations.empty() ? absl::OkStatus() : InvalidRequest(std::move(violations));
}

bool UploadSpace::Take(uint64_t bytes) {
  for (uint64_t taken = taken_.load();;) {
    if (taken > capacity_ || bytes > capacity_ - taken) {
      return false;
    }
    if (taken_.compare_exchange_weak(taken, taken + bytes)) {
      return true;
    }
  }
}

absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginFileUpload(UploadHeader header, const AdapterWriter& writer,
                                                               UploadSpace* space, UploadSteps steps) {
  ABSL_RETURN_IF_ERROR(CheckHeader(header));
  ABSL_RETURN_IF_ERROR(writer.CheckFree(header.name, header.replace));
  if (header.size > space->capacity()) {
    return MakeError(absl::StatusCode::kResourceExhausted, writer.kind().budget,
                     absl::StrCat(writer.kind().noun, " ", PrintableName(header.name), " has ", header.size,
                                  " bytes; the host tier has room for files of ", space->capacity()));
  }
  if (!space->Take(header.size)) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kUploadsBusy,
                     absl::StrCat(writer.kind().noun, " ", PrintableName(header.name), " has ", header.size,
                                  " bytes; with the uploads under way that would be more than ", space->capacity()),
                     absl::Seconds(1));
  }
  TakenSpace taken(space, [bytes = header.size](UploadSpace* from) { from->GiveBack(bytes); });
  ABSL_ASSIGN_OR_RETURN(IncomingFile file, writer.Create(header.name, header.size));
  return std::make_unique<FileUpload>(std::move(header), writer, std::move(taken), std::move(file), std::move(steps));
}

}  // namespace hotlora
