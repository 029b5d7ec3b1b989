#include "src/adapters/stored_folders.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"
#include "src/base/printable.h"
#include "src/base/status_macros.h"

namespace hotlora {

StoredFolders::Place StoredFolders::Of(absl::string_view name) const {
  for (const StoredFolder& folder : folders_) {
    const absl::string_view prefix = folder.directory->kind().prefix;
    if (!prefix.empty() && absl::StartsWith(name, prefix)) {
      return {folder, name.substr(prefix.size())};
    }
  }
  return {folders_.front(), name};
}

absl::StatusOr<const AdapterWriter*> StoredFolders::Place::writer() const {
  return folder.writer != nullptr
             ? absl::StatusOr<const AdapterWriter*>(folder.writer.get())
             : MakeError(absl::StatusCode::kFailedPrecondition, kind().folder_read_only,
                         absl::StrCat("nothing is written into the ", kind().folder_noun, " (", kind().flag, ")"));
}

std::string StoredFolders::Label(absl::string_view name) const {
  const Place place = Of(name);
  return absl::StrCat(place.kind().noun, " ", PrintableName(place.name));
}

absl::Status StoredFolders::Named(absl::string_view name, const absl::Status& status) const {
  const Place place = Of(name);
  return NamedError(place.kind(), place.name, status);
}

absl::StatusOr<AdapterVersion> StoredFolders::Find(absl::string_view name) const {
  const Place place = Of(name);
  return place.folder.directory->Find(place.name);
}

absl::StatusOr<ReadAdapter> StoredFolders::Read(const std::string& name, AdapterVersion& version,
                                                AcquireReport& report) const {
  const Place place = Of(name);
  ABSL_ASSIGN_OR_RETURN(ReadAdapter read, place.folder.reader->Read(std::string(place.name), version, report));
  read.info.name = name;
  return read;
}

}  // namespace hotlora
