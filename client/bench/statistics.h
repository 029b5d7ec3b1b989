#ifndef HOTLORA_CLIENT_BENCH_STATISTICS_H_
#define HOTLORA_CLIENT_BENCH_STATISTICS_H_

// Statistics of measured values: medians, quantiles, slopes, and their confidence intervals. Random numbers are seeded,
// so that the same values give the same figures. Every function REQUIRES at least one value.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace hotlora {

struct Interval {
  double low = 0.0;
  double high = 0.0;
};

// Between 0 and 1; linear between neighbours, as numpy.quantile.
double Quantile(std::vector<double> values, double fraction);
double Median(std::vector<double> values);

// The 95 % percentile interval of `statistic` by bootstrap. Values that follow each other closely are alike, so they
// are drawn in runs of `block` neighbours (moving-block bootstrap, Kuensch 1989); 1 takes them for independent.
struct Bootstrap {
  size_t block = 1;
  size_t resamples = 1000;
  uint64_t seed = 0;
};
Interval BootstrapInterval(const std::vector<double>& values,
                           const std::function<double(const std::vector<double>&)>& statistic,
                           const Bootstrap& bootstrap = {});

// The median of the slopes of all pairs (Theil 1950, Sen 1968). REQUIRES two different x.
double TheilSenSlope(const std::vector<double>& x, const std::vector<double>& y);
// Its 95 % interval by bootstrap: the residuals are drawn in blocks and added to the line.
Interval TheilSenInterval(const std::vector<double>& x, const std::vector<double>& y, const Bootstrap& bootstrap);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_BENCH_STATISTICS_H_
