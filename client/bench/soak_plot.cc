#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#include "client/bench/soak_record.h"
#include "client/bench/statistics.h"

namespace hotlora {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;
constexpr size_t kParts = 50;  // of the run, each with a median

// A point for each part of the run: the middle swap, and the median and middle half of the ratios there.
std::string RatioData(const std::vector<SoakSwap>& swaps) {
  std::string data;
  for (size_t part = 0; part < kParts; ++part) {
    const size_t begin = swaps.size() * part / kParts, end = swaps.size() * (part + 1) / kParts;
    if (begin == end) {
      continue;
    }
    std::vector<double> ratios;
    for (size_t i = begin; i < end; ++i) {
      ratios.push_back(swaps[i].ratio());
    }
    absl::StrAppend(&data, (begin + end) / 2, " ", Median(ratios), " ", Quantile(ratios, 0.25), " ",
                    Quantile(ratios, 0.75), "\n");
  }
  return data;
}

std::string Script(const SoakRecord& record, const std::string& file) {
  std::string memory;
  bool resident = false;
  const bool moves = HostTierMoves(record);
  for (const SoakIdle& idle : record.idle) {
    resident = resident || idle.figures.resident_bytes > 0;
    absl::StrAppend(&memory, idle.swaps, " ",
                    (idle.figures.allocated_bytes - (moves ? idle.figures.host_tier_bytes : 0)) / kMiB, " ",
                    idle.figures.resident_bytes / kMiB, "\n");
  }
  std::string script = absl::StrCat("set terminal pngcairo size 1000,620 font 'sans,11'\nset output '",
                                    absl::StrReplaceAll(file, {{"'", "''"}}), "'\n$memory << EOD\n", memory,
                                    "EOD\n$ratio << EOD\n", RatioData(record.swaps), "EOD\n");
  absl::StrAppend(
      &script,
      "set multiplot layout 2,1\nset grid lc rgb '#dddddd'\nset border 3 lc rgb '#555555'\nset tics nomirror\n"
      "set key outside top right horizontal\nset lmargin 10\nset rmargin 4\nset format x \"%'.0f\"\n"
      "set xrange [0:",
      record.swaps.size(),
      "]\nset ylabel 'MiB'\nset yrange [0:*]\n"
      "plot $memory using 1:2 with lines lw 2 lc rgb '#1f77b4' title 'allocated",
      moves ? ", the host tier aside'" : "'",
      resident ? ", $memory using 1:3 with lines lw 2 lc rgb '#d95f02' title 'RSS of the process'" : "",
      "\nset ylabel 'time / twin without a swap'\nset xlabel 'swaps'\n"
      "plot $ratio using 1:3:4 with filledcurves fc rgb '#c7dcef' title 'middle half', "
      "$ratio using 1:2 with lines lw 2 lc rgb '#1f77b4' title 'median'\nunset multiplot\n");
  return script;
}

}  // namespace

absl::Status PlotSoak(const SoakRecord& record, const std::string& file) {
  FILE* const gnuplot = popen("gnuplot", "w");
  if (gnuplot == nullptr) {
    return absl::UnavailableError("gnuplot cannot be started");
  }
  const std::string script = Script(record, file);
  std::fwrite(script.data(), 1, script.size(), gnuplot);
  return pclose(gnuplot) == 0 ? absl::OkStatus()
                              : absl::UnavailableError("--plot: gnuplot failed, or is not installed (gnuplot-nox)");
}

}  // namespace hotlora
