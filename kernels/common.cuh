// What every kernel file shares: which voxel a thread serves, where it lies, how pixels are read.
//
// The loader pastes this text in front of each .cu file, because CuPy's disk cache does not look into included files;
// the files include it themselves only where a compiler is given one of them as it stands.
#ifndef GPUDECON_COMMON
#define GPUDECON_COMMON

struct Voxel {
    int z, y, x;
};

__device__ inline Voxel this_voxel()
{
    return {int(blockIdx.z * blockDim.z + threadIdx.z), int(blockIdx.y * blockDim.y + threadIdx.y),
            int(blockIdx.x * blockDim.x + threadIdx.x)};
}

__device__ inline bool is_inside(Voxel v, int nz, int ny, int nx)
{
    return v.z < nz && v.y < ny && v.x < nx;
}

// Element offset in an array of ny rows per plane that lie `pitch` elements apart; volumes may exceed 2^31 elements.
__device__ inline long long offset_of(Voxel v, int ny, int pitch)
{
    return (static_cast<long long>(v.z) * ny + v.y) * pitch + v.x;
}

// np.maximum: unlike fmaxf it lets NaN through, so that a failed FFT shows in the result.
__device__ inline float at_least(float value, float bound)
{
    return value < bound ? bound : value;
}

// A mask marks measured voxels; no mask means that all are.
__device__ inline bool is_measured(const unsigned char* mask, long long offset)
{
    return !mask || mask[offset];
}

__device__ inline float background_at(float background, const float* background_image, long long offset)
{
    return background_image ? background + background_image[offset] : background;
}

// The same numbers as PIXEL_CODES in backend/cuda.py.
enum PixelType { PIXEL_U8, PIXEL_U16, PIXEL_I16, PIXEL_F32 };

__device__ inline float pixel_at(const void* image, int image_type, long long offset)
{
    switch (image_type) {
    case PIXEL_U8:
        return static_cast<const unsigned char*>(image)[offset];
    case PIXEL_U16:
        return static_cast<const unsigned short*>(image)[offset];
    case PIXEL_I16:
        return static_cast<const short*>(image)[offset];
    default:
        return static_cast<const float*>(image)[offset];
    }
}

#endif
