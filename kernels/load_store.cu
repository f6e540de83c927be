// Into the padded domain and out of it again.
//
// load_extended   work <- image, continued into the margin by a mirror taper along z, then y, then x
// store_cropped   out <- (source - offset) * scale on the box of out; integers rounded half to even and clipped
//
// work, source   float32 (domain_z, domain_y, domain_x), rows `pitch` floats apart
// image, out     (nz, ny, nx), contiguous, of the type image_type or out_type; the domain's corner at index 0
#ifndef GPUDECON_COMMON
#include "common.cuh"
#endif

// Along one axis: value = a[first] + weight * (a[second] - a[first]).
struct MirrorTaper {
    int first, second;
    float weight;
};

// Index into n samples that are mirrored at both ends and repeated for ever: a b c | c b a | a b c
__device__ inline int fold(int index, int n)
{
    int period = 2 * n, phase = index % period;
    if (phase < 0) phase += period;
    return phase < n ? phase : period - 1 - phase;
}

// In the margin the mirror image of the upper end fades (raised cosine) into that of the lower end, so that the
// periodic continuation has no jump.  The weight is rounded from double, as in the twin; only the margin pays for it.
__device__ inline MirrorTaper mirror_taper(int position, int n, int length)
{
    if (position < n) return {position, position, 0.0f};
    double fraction = (position - n + 0.5) / (length - n);
    return {fold(position, n), fold(position - length, n), static_cast<float>(0.5 - 0.5 * cospi(fraction))};
}

struct Image {
    const void* pixels;
    int type, ny, nx;
};

__device__ inline float taper_z(const Image& image, const MirrorTaper& z, int y, int x)
{
    float a = pixel_at(image.pixels, image.type, offset_of({z.first, y, x}, image.ny, image.nx));
    if (z.weight == 0.0f) return a;
    return a + z.weight * (pixel_at(image.pixels, image.type, offset_of({z.second, y, x}, image.ny, image.nx)) - a);
}

__device__ inline float taper_zy(const Image& image, const MirrorTaper& z, const MirrorTaper& y, int x)
{
    float a = taper_z(image, z, y.first, x);
    if (y.weight == 0.0f) return a;
    return a + y.weight * (taper_z(image, z, y.second, x) - a);
}

extern "C" __global__ void load_extended(float* work, const void* image, int domain_z, int domain_y, int domain_x,
                                         int pitch, int nz, int ny, int nx, int image_type)
{
    Voxel v = this_voxel();
    if (!is_inside(v, domain_z, domain_y, domain_x)) return;
    MirrorTaper z = mirror_taper(v.z, nz, domain_z);
    MirrorTaper y = mirror_taper(v.y, ny, domain_y);
    MirrorTaper x = mirror_taper(v.x, nx, domain_x);
    Image source = {image, image_type, ny, nx};
    float value = taper_zy(source, z, y, x.first);
    if (x.weight != 0.0f) value += x.weight * (taper_zy(source, z, y, x.second) - value);
    work[offset_of(v, domain_y, pitch)] = value;
}

extern "C" __global__ void store_cropped(void* out, const float* source, float scale, float offset, int domain_y,
                                         int pitch, int nz, int ny, int nx, int out_type)
{
    Voxel v = this_voxel();
    if (!is_inside(v, nz, ny, nx)) return;
    float value = (source[offset_of(v, domain_y, pitch)] - offset) * scale;
    long long i = offset_of(v, ny, nx);
    if (out_type == PIXEL_U8)
        static_cast<unsigned char*>(out)[i] = static_cast<unsigned char>(fminf(fmaxf(rintf(value), 0.0f), 255.0f));
    else if (out_type == PIXEL_U16)
        static_cast<unsigned short*>(out)[i] = static_cast<unsigned short>(fminf(fmaxf(rintf(value), 0.0f), 65535.0f));
    else
        static_cast<float*>(out)[i] = value;
}
