// Regularised Richardson-Lucy: what a penalty on roughness makes of the weights of an update.
//
// tv_factor         factors <- weights / c(1 + strength G),  G = -div( grad f / sqrt(|grad f|^2 + smooth^2) )
// good_factor       factors <- weights / c(1 + strength G),  G = -4 (Laplace q) / q  with  q = sqrt(f + smooth)
// tikhonov_factor   factors <- weights / c(1 + strength G),  G = -Laplace f
//
// f = estimate; c(x) = min(max(x, 1/2), 2).  Gradients take forward differences times scale_z, _y, _x, and 0 at the
// last sample of an axis; the divergence is minus their adjoint, and Laplace = div grad.
//
// factors, estimate, weights   float32 (nz, ny, nx), rows `..pitch` floats apart; weights may be null and then count
//                              as 1
#ifndef GPUDECON_COMMON
#include "common.cuh"
#endif

struct Field {
    const float* values;
    int nz, ny, nx, pitch;
    float scale_z, scale_y, scale_x;
};

__device__ inline float value_at(const Field& f, Voxel v)
{
    return f.values[offset_of(v, f.ny, f.pitch)];
}

struct Gradient {
    float z, y, x;
};

__device__ inline Gradient gradient_at(const Field& f, Voxel v)
{
    float here = value_at(f, v);
    return {v.z + 1 < f.nz ? f.scale_z * (value_at(f, {v.z + 1, v.y, v.x}) - here) : 0.0f,
            v.y + 1 < f.ny ? f.scale_y * (value_at(f, {v.z, v.y + 1, v.x}) - here) : 0.0f,
            v.x + 1 < f.nx ? f.scale_x * (value_at(f, {v.z, v.y, v.x + 1}) - here) : 0.0f};
}

__device__ inline float inverse_length(Gradient g, float smooth)
{
    return 1.0f / sqrtf(g.z * g.z + g.y * g.y + g.x * g.x + smooth * smooth);
}

__device__ inline float limited_inverse(float x)
{
    return 1.0f / (x > 2.0f ? 2.0f : at_least(x, 0.5f));
}

__device__ inline void store_factor(float* factors, const float* weights, Voxel v, float denominator, int ny,
                                    int factors_pitch, int weights_pitch)
{
    float factor = limited_inverse(denominator);
    factors[offset_of(v, ny, factors_pitch)] = weights ? factor * weights[offset_of(v, ny, weights_pitch)] : factor;
}

extern "C" __global__ void tv_factor(float* factors, const float* estimate, const float* weights, float strength,
                                     float smooth, float scale_z, float scale_y, float scale_x, int nz, int ny, int nx,
                                     int factors_pitch, int estimate_pitch, int weights_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, nz, ny, nx)) return;
    Field f = {estimate, nz, ny, nx, estimate_pitch, scale_z, scale_y, scale_x};
    Gradient g = gradient_at(f, v);
    float inverse = inverse_length(g, smooth);
    float divergence = scale_z * (g.z * inverse) + scale_y * (g.y * inverse) + scale_x * (g.x * inverse);
    if (v.z > 0) {
        Gradient before = gradient_at(f, {v.z - 1, v.y, v.x});
        divergence -= scale_z * (before.z * inverse_length(before, smooth));
    }
    if (v.y > 0) {
        Gradient before = gradient_at(f, {v.z, v.y - 1, v.x});
        divergence -= scale_y * (before.y * inverse_length(before, smooth));
    }
    if (v.x > 0) {
        Gradient before = gradient_at(f, {v.z, v.y, v.x - 1});
        divergence -= scale_x * (before.x * inverse_length(before, smooth));
    }
    store_factor(factors, weights, v, 1.0f - strength * divergence, ny, factors_pitch, weights_pitch);
}

// Of f itself, or of sqrt(f + smooth).
__device__ inline float laplacian_at(const Field& f, Voxel v, bool root, float smooth)
{
    auto at = [&](Voxel w) {
        float value = value_at(f, w);
        return root ? sqrtf(value + smooth) : value;
    };
    float here = at(v);
    float z = (v.z + 1 < f.nz ? at({v.z + 1, v.y, v.x}) - here : 0.0f) -
              (v.z > 0 ? here - at({v.z - 1, v.y, v.x}) : 0.0f);
    float y = (v.y + 1 < f.ny ? at({v.z, v.y + 1, v.x}) - here : 0.0f) -
              (v.y > 0 ? here - at({v.z, v.y - 1, v.x}) : 0.0f);
    float x = (v.x + 1 < f.nx ? at({v.z, v.y, v.x + 1}) - here : 0.0f) -
              (v.x > 0 ? here - at({v.z, v.y, v.x - 1}) : 0.0f);
    return f.scale_z * f.scale_z * z + f.scale_y * f.scale_y * y + f.scale_x * f.scale_x * x;
}

extern "C" __global__ void good_factor(float* factors, const float* estimate, const float* weights, float strength,
                                       float smooth, float scale_z, float scale_y, float scale_x, int nz, int ny,
                                       int nx, int factors_pitch, int estimate_pitch, int weights_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, nz, ny, nx)) return;
    Field f = {estimate, nz, ny, nx, estimate_pitch, scale_z, scale_y, scale_x};
    float curvature = laplacian_at(f, v, true, smooth) / sqrtf(value_at(f, v) + smooth);
    store_factor(factors, weights, v, 1.0f - 4.0f * strength * curvature, ny, factors_pitch, weights_pitch);
}

extern "C" __global__ void tikhonov_factor(float* factors, const float* estimate, const float* weights,
                                           float strength, float scale_z, float scale_y, float scale_x, int nz, int ny,
                                           int nx, int factors_pitch, int estimate_pitch, int weights_pitch)
{
    Voxel v = this_voxel();
    if (!is_inside(v, nz, ny, nx)) return;
    Field f = {estimate, nz, ny, nx, estimate_pitch, scale_z, scale_y, scale_x};
    float denominator = 1.0f - strength * laplacian_at(f, v, false, 0.0f);
    store_factor(factors, weights, v, denominator, ny, factors_pitch, weights_pitch);
}
