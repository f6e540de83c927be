// One Richardson-Lucy iteration, apart from the two convolutions.
//
// rl_ratio             work <- image / max(work + background + background_image, floor) inside the image where mask is
//                      not 0, and 0 elsewhere
// rl_excess            the same, less 1 where the image is measured
// rl_unmatched_factor  work <- max(1 + work weights, 1/2)
// rl_update            estimate <- estimate * max(work, 0) * weights
// rl_update_momentum   new = estimate * max(work, 0) * weights; step = momentum (new - previous) + excess (new - estimate)
//                      estimate <- new + step, or new exp(step / new) where step < 0; previous <- new
// rl_step              new = estimate * max(work, 0) * weights; step <- new - estimate; work <- new
// rl_predict           step = momentum (work - previous); estimate <- work + step, or work exp(step / work) where
//                      step < 0; previous <- work
//
// work, estimate, previous, step, weights   float32 (domain_z, domain_y, domain_x), rows `..pitch`
//                                     floats apart; weights may be null and then count as 1
// image                               (nz, ny, nx), contiguous, of the type image_type; corner at index 0
// background_image, mask              like image, but float32 and one byte each; may be null: nothing is added, all is
//                                     measured
#ifndef GPUDECON_COMMON
#include "common.cuh"
#endif

constexpr float STEEPEST = 16.0f;  // of `ahead`: where a step down is larger than so many times the value, it is that
constexpr float TINIEST = 1e-30f;

struct Scene {
    const void* image;
    float background;
    const float* background_image;
    const unsigned char* mask;
    float floor;
    int nz, ny, nx, image_type;
};

// image / model less `subtracted`, where the image is measured, and 0 elsewhere
__device__ inline float ratio_at(Voxel v, float blurred, const Scene& scene, float subtracted)
{
    if (!is_inside(v, scene.nz, scene.ny, scene.nx)) return 0.0f;
    long long i = offset_of(v, scene.ny, scene.nx);
    if (!is_measured(scene.mask, i)) return 0.0f;
    float model = at_least(blurred + background_at(scene.background, scene.background_image, i), scene.floor);
    return pixel_at(scene.image, scene.image_type, i) / model - subtracted;
}

extern "C" __global__ void rl_ratio(float* work, const void* image, float background, const float* background_image,
                                    const unsigned char* mask, float floor, int domain_z, int domain_y, int domain_x,
                                    int pitch, int nz, int ny, int nx, int image_type)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    float& value = work[offset_of(v, domain_y, pitch)];
    value = ratio_at(v, value, {image, background, background_image, mask, floor, nz, ny, nx, image_type}, 0.0f);
}

extern "C" __global__ void rl_excess(float* work, const void* image, float background, const float* background_image,
                                     const unsigned char* mask, float floor, int domain_z, int domain_y, int domain_x,
                                     int pitch, int nz, int ny, int nx, int image_type)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    float& value = work[offset_of(v, domain_y, pitch)];
    value = ratio_at(v, value, {image, background, background_image, mask, floor, nz, ny, nx, image_type}, 1.0f);
}

extern "C" __global__ void rl_unmatched_factor(float* work, const float* weights, int domain_z, int domain_y,
                                               int domain_x, int work_pitch, int weights_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    float& value = work[offset_of(v, domain_y, work_pitch)];
    float weight = weights ? weights[offset_of(v, domain_y, weights_pitch)] : 1.0f;
    value = at_least(1.0f + weight * value, 0.5f);
}

// The factor of one update; the FFT's rounding must not turn zero negative.
__device__ inline float correction(Voxel v, const float* work, const float* weights, int domain_y, int work_pitch,
                                   int weights_pitch)
{
    float factor = at_least(work[offset_of(v, domain_y, work_pitch)], 0.0f);
    return weights ? factor * weights[offset_of(v, domain_y, weights_pitch)] : factor;
}

// From `value` on by `step`; downwards exponentially, with the same slope, so that nothing reaches 0 and stays there.
__device__ inline float ahead(float value, float step)
{
    if (!(step < 0.0f)) return value + step;
    return value * expf(at_least(step, -STEEPEST * value) / (value + TINIEST));
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
                                              const float* weights, float momentum, float excess, int domain_z,
                                              int domain_y, int domain_x, int estimate_pitch, int previous_pitch,
                                              int work_pitch, int weights_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    float& value = estimate[offset_of(v, domain_y, estimate_pitch)];
    float& last = previous[offset_of(v, domain_y, previous_pitch)];
    float updated = value * correction(v, work, weights, domain_y, work_pitch, weights_pitch);
    value = ahead(updated, momentum * (updated - last) + excess * (updated - value));
    last = updated;
}

extern "C" __global__ void rl_step(float* work, float* step, const float* estimate, const float* weights, int domain_z,
                                   int domain_y, int domain_x, int work_pitch, int step_pitch, int estimate_pitch,
                                   int weights_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    float value = estimate[offset_of(v, domain_y, estimate_pitch)];
    float updated = value * correction(v, work, weights, domain_y, work_pitch, weights_pitch);
    step[offset_of(v, domain_y, step_pitch)] = updated - value;
    work[offset_of(v, domain_y, work_pitch)] = updated;
}

extern "C" __global__ void rl_predict(float* estimate, float* previous, const float* work, float momentum,
                                      int domain_z, int domain_y, int domain_x, int estimate_pitch, int previous_pitch,
                                      int work_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    float updated = work[offset_of(v, domain_y, work_pitch)];
    float& last = previous[offset_of(v, domain_y, previous_pitch)];
    estimate[offset_of(v, domain_y, estimate_pitch)] = ahead(updated, momentum * (updated - last));
    last = updated;
}
