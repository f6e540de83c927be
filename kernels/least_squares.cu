// Steps of least-squares methods, apart from the convolutions.
//
// residual         work <- image - background - background_image - work inside the image where mask is not 0, and 0
//                  elsewhere
// projected_step   estimate <- max(estimate + step work, lowest)
// bounded_sum      target <- target_factor target + other_factor other, but 0 where this is negative and estimate is not
//                  above lowest: no direction leads out of the bound
//
// work, estimate, target, other   float32 (domain_z, domain_y, domain_x), rows `..pitch` floats apart
// image                           (nz, ny, nx), contiguous, of the type image_type; corner at index 0
// background_image, mask          like image, but float32 and one byte each; may be null: nothing is subtracted, all is
//                                 measured
// lowest                          may be minus infinity: no bound
#ifndef GPUDECON_COMMON
#include "common.cuh"
#endif

extern "C" __global__ void residual(float* work, const void* image, float background, const float* background_image,
                                    const unsigned char* mask, int domain_z, int domain_y, int domain_x, int pitch,
                                    int nz, int ny, int nx, int image_type)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    float& value = work[offset_of(v, domain_y, pitch)];
    long long i = offset_of(v, ny, nx);
    value = is_inside(v, nz, ny, nx) && is_measured(mask, i)
                ? pixel_at(image, image_type, i) - (value + background_at(background, background_image, i))
                : 0.0f;
}

extern "C" __global__ void projected_step(float* estimate, const float* work, float step, float lowest, int domain_z,
                                          int domain_y, int domain_x, int estimate_pitch, int work_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    float& value = estimate[offset_of(v, domain_y, estimate_pitch)];
    value = at_least(value + step * work[offset_of(v, domain_y, work_pitch)], lowest);
}

extern "C" __global__ void bounded_sum(float* target, const float* other, const float* estimate, float target_factor,
                                       float other_factor, float lowest, int domain_z, int domain_y, int domain_x,
                                       int target_pitch, int other_pitch, int estimate_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    float& value = target[offset_of(v, domain_y, target_pitch)];
    float sum = target_factor * value + other_factor * other[offset_of(v, domain_y, other_pitch)];
    value = sum < 0.0f && estimate[offset_of(v, domain_y, estimate_pitch)] <= lowest ? 0.0f : sum;
}
