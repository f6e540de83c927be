// Sums along x in double precision, from which the caller makes sums over all.
//
// inner_product   rows[z, y] <- sum over x of work other
// tv_gap          rows[z, y] <- sum over x of |g| - g . dual  with g = scale grad estimate, as in total_variation.cu
//
// rows                    float64 (nz, ny), contiguous
// work, other, estimate   float32 (nz, ny, nx), rows `..pitch` floats apart
// dual                    float32 (3, nz, ny, nx), contiguous
//
// One block per row: blockIdx.x = y, blockIdx.z = z.  The order of the sum is fixed: same input, same bits.
#ifndef GPUDECON_COMMON
#include "common.cuh"
#endif

// Threads in a block, a power of two; the launch table in backend/cuda.py has the same number.
constexpr int ROW_THREADS = 256;

// The sum of one number per thread, in thread 0.
__device__ inline double sum_of_block(double value)
{
    __shared__ double partial[ROW_THREADS];
    int lane = threadIdx.x;
    partial[lane] = value;
    for (int half = ROW_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) partial[lane] += partial[lane + half];
    }
    return partial[0];
}

extern "C" __global__ void inner_product(double* rows, const float* work, const float* other, int ny, int nx,
                                         int work_pitch, int other_pitch)
{
    Voxel v = {int(blockIdx.z), int(blockIdx.x), 0};
    const float* a = work + offset_of(v, ny, work_pitch);
    const float* b = other + offset_of(v, ny, other_pitch);
    double sum = 0.0;
    for (int x = threadIdx.x; x < nx; x += ROW_THREADS) sum += static_cast<double>(a[x]) * b[x];
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) rows[static_cast<long long>(v.z) * ny + v.y] = sum;
}

extern "C" __global__ void tv_gap(double* rows, const float* estimate, const float* dual, float scale_z, float scale_y,
                                  float scale_x, int nz, int ny, int nx, int pitch)
{
    Voxel v = {int(blockIdx.z), int(blockIdx.x), int(threadIdx.x)};
    long long volume = static_cast<long long>(nz) * ny * nx;
    double sum = 0.0;
    for (; v.x < nx; v.x += ROW_THREADS) {
        const float* here = estimate + offset_of(v, ny, pitch);
        const float* p = dual + offset_of(v, ny, nx);
        float gz = v.z + 1 < nz ? scale_z * (here[static_cast<long long>(ny) * pitch] - *here) : 0.0f;
        float gy = v.y + 1 < ny ? scale_y * (here[pitch] - *here) : 0.0f;
        float gx = v.x + 1 < nx ? scale_x * (here[1] - *here) : 0.0f;
        sum += sqrtf(gz * gz + gy * gy + gx * gx) - (gz * *p + gy * p[volume] + gx * p[2 * volume]);
    }
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) rows[static_cast<long long>(v.z) * ny + v.y] = sum;
}
