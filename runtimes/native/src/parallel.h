// Rows of work shared among threads.
#ifndef POCKETPRIOR_SRC_PARALLEL_H_
#define POCKETPRIOR_SRC_PARALLEL_H_

#include <algorithm>
#include <cstddef>
#include <system_error>
#include <thread>

namespace pocketprior {

constexpr std::size_t kMaxThreads = 16;
constexpr std::size_t kValuesPerThread = 65536;  // a thread costs about as much as 10,000 normals

inline std::size_t thread_count(std::size_t rows, std::size_t row_values, unsigned asked) {
  const std::size_t cores = asked != 0 ? asked : std::max(1u, std::thread::hardware_concurrency());
  const std::size_t useful = std::max<std::size_t>(1, rows * row_values / kValuesPerThread);
  return std::min({cores, useful, std::max<std::size_t>(1, rows), kMaxThreads});
}

// Calls work(first_row, last_row) so that each row in [0, rows) is done once; returns when all are.
template <typename Work>
void parallel_rows(std::size_t rows, std::size_t row_values, unsigned asked, const Work& work) {
  const std::size_t count = thread_count(rows, row_values, asked);
  std::thread helpers[kMaxThreads];
  for (std::size_t i = 1; i < count; ++i) {
    const std::size_t first = rows * i / count, last = rows * (i + 1) / count;
    try {
      helpers[i] = std::thread([&work, first, last] { work(first, last); });
    } catch (const std::system_error&) {
      work(first, last);
    }
  }
  work(0, rows / count);
  for (std::thread& helper : helpers)
    if (helper.joinable()) helper.join();
}

}  // namespace pocketprior

#endif  // POCKETPRIOR_SRC_PARALLEL_H_
