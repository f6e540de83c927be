// From radial profiles to volumes.
//
// radial_expand   out[z, y, x] <- table[z] at rho = sqrt(((y - centre_y) pitch_y)^2 + ((x - centre_x) pitch_x)^2),
//                 by the cubic through the four nearest samples; the profile continues evenly below rho = 0
//
// out     float32 (nz, ny, nx), contiguous
// table   float32 (nz, samples), contiguous: plane z at rho = 0, 1, 2, ..., at least two samples beyond the largest rho
//
// The radius is in double: in float it would be off by 1e-4 of a step where profiles have thousands of them.
#ifndef GPUDECON_COMMON
#include "common.cuh"
#endif

extern "C" __global__ void radial_expand(float* out, const float* table, double centre_y, double centre_x,
                                         double pitch_y, double pitch_x, int nz, int ny, int nx, int samples)
{
    Voxel v = this_voxel();
    if (!is_inside(v, nz, ny, nx)) return;
    double y = (v.y - centre_y) * pitch_y, x = (v.x - centre_x) * pitch_x;
    double rho = sqrt(y * y + x * x);
    int i = static_cast<int>(rho);
    float t = static_cast<float>(rho - i);
    const float* profile = table + static_cast<long long>(v.z) * samples;
    float sum = profile[i > 0 ? i - 1 : 1] * (t * (t - 1) * (2 - t) / 6);
    sum += profile[i] * ((t + 1) * (t - 1) * (t - 2) / 2);
    sum += profile[i + 1] * ((t + 1) * t * (2 - t) / 2);
    sum += profile[i + 2] * ((t + 1) * t * (t - 1) / 6);
    out[offset_of(v, ny, nx)] = sum;
}
