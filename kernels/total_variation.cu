// Total variation by its dual: one vector per voxel, no longer than 1, for the gradient of the estimate.
//
// tv_dual     new = (lead + step grad estimate) / max(1, |lead + step grad estimate|)
//             lead <- new + momentum (new - dual); dual <- new
// tv_primal   estimate <- max(source + div(weight dual), lowest)
//
// The gradient takes forward differences, 0 at the last sample of an axis; the divergence is minus its adjoint:
// differences to the sample before, what is missing at either end counts as 0.  Steps and weights differ by axis: anisotropic voxels.
//
// dual, lead         float32 (3, nz, ny, nx), contiguous: components along z, y and x
// estimate, source   float32 (nz, ny, nx), rows `..pitch` floats apart
#ifndef GPUDECON_COMMON
#include "common.cuh"
#endif

extern "C" __global__ void tv_dual(float* dual, float* lead, const float* estimate, float step_z, float step_y,
                                   float step_x, float momentum, int nz, int ny, int nx, int pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, nz, ny, nx)) return;
    long long volume = static_cast<long long>(nz) * ny * nx, i = offset_of(v, ny, nx);
    const float* here = estimate + offset_of(v, ny, pitch);
    float moved[3] = {lead[i], lead[i + volume], lead[i + 2 * volume]};
    if (v.z + 1 < nz) moved[0] += step_z * (here[static_cast<long long>(ny) * pitch] - *here);
    if (v.y + 1 < ny) moved[1] += step_y * (here[pitch] - *here);
    if (v.x + 1 < nx) moved[2] += step_x * (here[1] - *here);
    float length = at_least(sqrtf(moved[0] * moved[0] + moved[1] * moved[1] + moved[2] * moved[2]), 1.0f);
    for (int axis = 0; axis < 3; ++axis, i += volume) {
        float updated = moved[axis] / length;
        lead[i] = updated + momentum * (updated - dual[i]);
        dual[i] = updated;
    }
}

extern "C" __global__ void tv_primal(float* estimate, const float* source, const float* dual, float weight_z,
                                     float weight_y, float weight_x, float lowest, int nz, int ny, int nx,
                                     int estimate_pitch, int source_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, nz, ny, nx)) return;
    long long volume = static_cast<long long>(nz) * ny * nx, i = offset_of(v, ny, nx);
    const float *along_z = dual + i, *along_y = along_z + volume, *along_x = along_y + volume;
    float sum = source[offset_of(v, ny, source_pitch)];
    if (v.z + 1 < nz) sum += weight_z * *along_z;
    if (v.z > 0) sum -= weight_z * along_z[-static_cast<long long>(ny) * nx];
    if (v.y + 1 < ny) sum += weight_y * *along_y;
    if (v.y > 0) sum -= weight_y * along_y[-nx];
    if (v.x + 1 < nx) sum += weight_x * *along_x;
    if (v.x > 0) sum -= weight_x * along_x[-1];
    estimate[offset_of(v, ny, estimate_pitch)] = at_least(sum, lowest);
}
