#include "client/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

namespace hotlora {
namespace {

// mt19937_64's numbers are the same everywhere; std::uniform_int_distribution's are not.
size_t Below(std::mt19937_64& random, size_t count) { return static_cast<size_t>(random() % count); }

std::vector<double> Redrawn(const std::vector<double>& values, size_t block, std::mt19937_64& random) {
  const size_t length = std::clamp<size_t>(block, 1, values.size());
  std::vector<double> drawn;
  drawn.reserve(values.size() + length);
  while (drawn.size() < values.size()) {
    const size_t start = Below(random, values.size() - length + 1);
    drawn.insert(drawn.end(), values.begin() + start, values.begin() + start + length);
  }
  drawn.resize(values.size());
  return drawn;
}

Interval Middle95(std::vector<double> values) {
  const double low = Quantile(values, 0.025);
  return {low, Quantile(std::move(values), 0.975)};
}

}  // namespace

double Quantile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  const double place = fraction * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(std::floor(place));
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

double Median(std::vector<double> values) { return Quantile(std::move(values), 0.5); }

Interval BootstrapInterval(const std::vector<double>& values,
                           const std::function<double(const std::vector<double>&)>& statistic,
                           const Bootstrap& bootstrap) {
  std::mt19937_64 random(bootstrap.seed);
  std::vector<double> results(bootstrap.resamples);
  for (double& result : results) {
    result = statistic(Redrawn(values, bootstrap.block, random));
  }
  return Middle95(std::move(results));
}

double TheilSenSlope(const std::vector<double>& x, const std::vector<double>& y) {
  std::vector<double> slopes;
  slopes.reserve(x.size() * (x.size() - 1) / 2);
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = i + 1; j < x.size(); ++j) {
      if (x[j] != x[i]) {
        slopes.push_back((y[j] - y[i]) / (x[j] - x[i]));
      }
    }
  }
  // A sorted copy of twenty thousand slopes, a thousand times over, would take seconds.
  const size_t middle = slopes.size() / 2;
  std::nth_element(slopes.begin(), slopes.begin() + middle, slopes.end());
  if (slopes.size() % 2 == 1) {
    return slopes[middle];
  }
  return 0.5 * (slopes[middle] + *std::max_element(slopes.begin(), slopes.begin() + middle));
}

Interval TheilSenInterval(const std::vector<double>& x, const std::vector<double>& y, const Bootstrap& bootstrap) {
  const double slope = TheilSenSlope(x, y);
  std::vector<double> rest(y.size());
  for (size_t i = 0; i < y.size(); ++i) {
    rest[i] = y[i] - slope * x[i];
  }
  return BootstrapInterval(
      rest,
      [&](std::vector<double> drawn) {
        for (size_t i = 0; i < drawn.size(); ++i) {
          drawn[i] += slope * x[i];
        }
        return TheilSenSlope(x, drawn);
      },
      bootstrap);
}

}  // namespace hotlora
