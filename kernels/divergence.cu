// How far the blurred estimate is from the image.
//
// poisson_divergence   rows[z, y] <- sum over x, where mask is not 0, of m - g + g log(g / m)
//                      with m = max(work + background + background_image, floor) and g = image
//
// rows    float64 (nz, ny), contiguous
// work    float32 (domain_z, domain_y, domain_x), rows `pitch` floats apart
// image   (nz, ny, nx), contiguous, of the type image_type; corner at index 0
// background_image, mask   like image, but float32 and one byte each; may be null: nothing is added, all is measured
//
// One block per image row: blockIdx.x = y, blockIdx.z = z.  The order of the sum is fixed, so that the same input
// gives the same bits, and with it the same decision of a stop rule.
#ifndef GPUDECON_COMMON
#include "common.cuh"
#endif

// Threads in a block, a power of two; the launch table in backend/cuda.py has the same number.
constexpr int ROW_THREADS = 256;

extern "C" __global__ void poisson_divergence(double* rows, const float* work, const void* image, float background,
                                              const float* background_image, const unsigned char* mask, float floor,
                                              int domain_y, int pitch, int ny, int nx, int image_type)
{
    __shared__ double partial[ROW_THREADS];
    int lane = threadIdx.x;
    Voxel v = {int(blockIdx.z), int(blockIdx.x), lane};
    double sum = 0.0;
    for (; v.x < nx; v.x += ROW_THREADS) {
        long long i = offset_of(v, ny, nx);
        if (!is_measured(mask, i)) continue;
        float g = pixel_at(image, image_type, i);
        float m = work[offset_of(v, domain_y, pitch)] + background_at(background, background_image, i);
        m = at_least(m, floor);
        sum += m - g + g * logf(at_least(g / m, 1e-37f));  // the bound makes 0 log 0 = 0
    }
    partial[lane] = sum;
    for (int half = ROW_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) partial[lane] += partial[lane + half];
    }
    if (lane == 0) rows[static_cast<long long>(v.z) * ny + v.y] = partial[0];
}
