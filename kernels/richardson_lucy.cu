// One Richardson-Lucy iteration, apart from the two convolutions.
//
// rl_ratio             work <- image / max(work + background + background_image, floor) inside the image where mask is
//                      not 0, and 0 elsewhere
// rl_update            estimate <- estimate * max(work, 0) * weights
// rl_update_momentum   new = estimate * max(work, 0) * weights
//                      estimate <- max(new + momentum (new - previous), new / 2); previous <- new
//
// work, estimate, previous, weights   float32 (domain_z, domain_y, domain_x), rows `..pitch` floats apart;
//                                     weights may be null and then count as 1
// image                               (nz, ny, nx), contiguous, of the type image_type; corner at index 0
// background_image, mask              like image, but float32 and one byte each; may be null: nothing is added, all is
//                                     measured
#ifndef GPUDECON_COMMON
#include "common.cuh"
#endif

extern "C" __global__ void rl_ratio(float* work, const void* image, float background, const float* background_image,
                                    const unsigned char* mask, float floor, int domain_z, int domain_y, int domain_x,
                                    int pitch, int nz, int ny, int nx, int image_type)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    float& value = work[offset_of(v, domain_y, pitch)];
    long long i = offset_of(v, ny, nx);
    value = is_inside(v, nz, ny, nx) && is_measured(mask, i)
                ? pixel_at(image, image_type, i) / at_least(value + background_at(background, background_image, i), floor)
                : 0.0f;
}

// The factor of one update; the FFT's rounding must not turn zero negative.
__device__ inline float correction(Voxel v, const float* work, const float* weights, int domain_y, int work_pitch,
                                   int weights_pitch)
{
    float factor = at_least(work[offset_of(v, domain_y, work_pitch)], 0.0f);
    return weights ? factor * weights[offset_of(v, domain_y, weights_pitch)] : factor;
}

extern "C" __global__ void rl_update(float* estimate, const float* work, const float* weights, int domain_z,
                                     int domain_y, int domain_x, int estimate_pitch, int work_pitch, int weights_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    estimate[offset_of(v, domain_y, estimate_pitch)] *=
        correction(v, work, weights, domain_y, work_pitch, weights_pitch);
}

extern "C" __global__ void rl_update_momentum(float* estimate, float* previous, const float* work,
                                              const float* weights, float momentum, int domain_z, int domain_y,
                                              int domain_x, int estimate_pitch, int previous_pitch, int work_pitch,
                                              int weights_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    float& value = estimate[offset_of(v, domain_y, estimate_pitch)];
    float& last = previous[offset_of(v, domain_y, previous_pitch)];
    float updated = value * correction(v, work, weights, domain_y, work_pitch, weights_pitch);
    value = at_least(updated + momentum * (updated - last), 0.5f * updated);
    last = updated;
}
