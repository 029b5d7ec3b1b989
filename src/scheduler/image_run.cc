#include "src/scheduler/image_run.h"

#include <algorithm>

namespace hotlora {

std::vector<RowRef> RowsOf(absl::Span<const std::shared_ptr<ImageRun>> runs) {
  std::vector<RowRef> rows;
  for (const auto& run : runs) {
    for (RunningRow& row : run->rows) {
      rows.push_back({run.get(), &row, row.row->steps_done(), row.row->evaluations()});
    }
  }
  return rows;
}

size_t RowCount(absl::Span<const std::shared_ptr<ImageRun>> runs) {
  size_t count = 0;
  for (const auto& run : runs) {
    count += run->rows.size();
  }
  return count;
}

std::vector<std::string> SetsWithRows(absl::Span<const std::shared_ptr<ImageRun>> runs) {
  std::vector<std::string> sets;
  for (const auto& run : runs) {
    for (const RunningRow& row : run->rows) {
      const std::string& set = row.row->next_adapters().fingerprint;
      if (std::find(sets.begin(), sets.end(), set) == sets.end()) {
        sets.push_back(set);
      }
      if (run->HasOneSet(row)) {
        break;  // the other rows of the run have the same
      }
    }
  }
  return sets;
}

}  // namespace hotlora
