// Just enough of CUDA to run the kernels on the host (C++20), for their arithmetic, indexing, bounds and barriers.
//
// Blocks run one after the other, so `__shared__` may be static.  The threads of a block run one after the other too,
// except in kernels with __syncthreads: there each is a real thread, and one that returns leaves the barrier, so that
// an early return cannot hang the others.  Not here: warp shuffles, dynamic shared memory, textures, races between
// blocks, FMA contraction, flushed denormals.
#include <barrier>
#include <cmath>
#include <cstddef>
#include <deque>
#include <numbers>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
};
struct float2 {
    float x, y;
};

static dim3 gridDim, blockDim;
static thread_local dim3 blockIdx, threadIdx;
static thread_local std::barrier<>* block_barrier;

inline void __syncthreads() { block_barrier->arrive_and_wait(); }

inline double cospi(double x) { return std::cos(std::numbers::pi * x); }

template <class Visit> void for_each_index(dim3 size, Visit visit)
{
    for (unsigned z = 0; z < size.z; ++z)
        for (unsigned y = 0; y < size.y; ++y)
            for (unsigned x = 0; x < size.x; ++x) visit(dim3{x, y, z});
}

template <class Kernel> void launch_in_turn(Kernel kernel)
{
    for_each_index(gridDim, [&](dim3 block) {
        blockIdx = block;
        for_each_index(blockDim, [&](dim3 thread) {
            threadIdx = thread;
            kernel();
        });
    });
}

template <class Kernel> void launch_together(Kernel kernel)
{
    const std::ptrdiff_t threads = std::ptrdiff_t(blockDim.x) * blockDim.y * blockDim.z;
    std::barrier<> next_block(threads);  // the next block must not write shared memory that this one still reads
    std::deque<std::barrier<>> inside;
    for_each_index(gridDim, [&](dim3) { inside.emplace_back(threads); });

    std::vector<std::jthread> pool;
    for_each_index(blockDim, [&](dim3 thread) {
        pool.emplace_back([&, thread] {
            threadIdx = thread;
            auto barrier = inside.begin();
            for_each_index(gridDim, [&](dim3 block) {
                blockIdx = block;
                block_barrier = &*barrier++;
                kernel();
                block_barrier->arrive_and_drop();
                next_block.arrive_and_wait();
            });
        });
    });
}
