// Between the forward and the inverse FFT.
//
// multiply_otf         spectrum <- spectrum * otf, or spectrum * conj(otf)
// regularized_filter   spectrum <- conj(H) spectrum / (|H|^2 + noise_to_signal + gamma L^2) / scale
//                      with H = scale * otf and L = laplacian_z[z] + laplacian_y[y] + laplacian_x[x]
//
// spectrum, otf      complex64 (nz, ny, nx), contiguous; nx counts the half spectrum, X / 2 + 1
// laplacian_z, _y, _x   float32 vectors of nz, ny and nx elements
#ifndef GPUDECON_COMMON
#include "common.cuh"
#endif

__device__ inline float2 multiply(float2 a, float2 b)
{
    return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x};
}

extern "C" __global__ void multiply_otf(float2* spectrum, const float2* otf, bool conjugate, int nz, int ny, int nx)
{
    Voxel v = this_voxel();
    if (!is_inside(v, nz, ny, nx)) return;
    long long i = offset_of(v, ny, nx);
    float2 h = otf[i];
    if (conjugate) h.y = -h.y;
    spectrum[i] = multiply(spectrum[i], h);
}

extern "C" __global__ void regularized_filter(float2* spectrum, const float2* otf, const float* laplacian_z,
                                              const float* laplacian_y, const float* laplacian_x,
                                              float noise_to_signal, float gamma, float scale, int nz, int ny, int nx)
{
    Voxel v = this_voxel();
    if (!is_inside(v, nz, ny, nx)) return;
    long long i = offset_of(v, ny, nx);
    float2 h = {scale * otf[i].x, scale * otf[i].y};
    float laplacian = laplacian_z[v.z] + laplacian_y[v.y] + laplacian_x[v.x];
    float denominator = h.x * h.x + h.y * h.y + (noise_to_signal + gamma * laplacian * laplacian);
    // The smallest normal float: below it the quotient would overflow, and -ftz=true makes such numbers 0 anyhow.
    float inverse = denominator >= 1.17549435e-38f ? 1.0f / scale / denominator : 0.0f;
    float2 product = multiply(spectrum[i], {h.x, -h.y});
    spectrum[i] = {product.x * inverse, product.y * inverse};
}
