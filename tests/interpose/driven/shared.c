/* Memory that others made costs nothing here, whatever way it comes: by IPC, by exported handles and pools, from a graphics
 * interface. Giving it back is the driver's business. What is bound to a multicast object stays counted while it is. */
#include <sys/wait.h>
#include <unistd.h>

#include "driven.h"
#include "sim/driver_more.h"

extern CUresult cuIpcGetMemHandle(CUipcMemHandle *out, CUdeviceptr at);
extern CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *out, CUipcMemHandle handle, unsigned int flags);
extern CUresult cuIpcCloseMemHandle(CUdeviceptr at);
extern CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle,
                                             CUmemAllocationHandleType type, unsigned long long flags);
extern CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *out, void *handle,
                                               CUmemAllocationHandleType type);
extern CUresult cuMemPoolExportToShareableHandle(void *out, CUmemoryPool pool, CUmemAllocationHandleType type,
                                                 unsigned long long flags);
extern CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData *out, CUdeviceptr at);
extern CUresult cuMemPoolImportPointer(CUdeviceptr *out, CUmemoryPool pool, CUmemPoolPtrExportData *data);
extern CUresult cuImportExternalMemory(CUexternalMemory *out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *desc);
extern CUresult cuExternalMemoryGetMappedBuffer(CUdeviceptr *out, CUexternalMemory memory,
                                                const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *desc);
extern CUresult cuDestroyExternalMemory(CUexternalMemory memory);
extern CUresult cuMemAddressReserve(CUdeviceptr *at, size_t size, size_t align, CUdeviceptr hint, unsigned long long f);
extern CUresult cuMulticastCreate(CUmemGenericAllocationHandle *out, const CUmulticastObjectProp *prop);
extern CUresult cuMulticastAddDevice(CUmemGenericAllocationHandle multicast, CUdevice dev);

static const CUmemAllocationProp pinned = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                           .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                           .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};

struct offer {
    CUipcMemHandle linear;
    int physical, pool;
    CUmemPoolPtrExportData pointer;
};

static void open_all(const struct offer *offer, int before)
{
    const CUmemAllocationHandleType by_fd = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    CUdeviceptr at, range;
    use_device(0);
    OK(CU(cuIpcOpenMemHandle_v2)(&at, offer->linear, 1));
    CHECK_EQUAL(counted(0), before);
    OK(CU(cuIpcCloseMemHandle)(at));
    CHECK(CU(cuIpcCloseMemHandle)(at) != CUDA_SUCCESS);

    CUmemGenericAllocationHandle handle, again;
    OK(CU(cuMemImportFromShareableHandle)(&handle, (void *)(intptr_t)offer->physical, by_fd));
    OK(CU(cuMemAddressReserve)(&range, 20 * MIB, 0, 0, 0));
    OK(CU(cuMemMap)(range, 20 * MIB, 0, handle, 0));
    OK(CU(cuMemRetainAllocationHandle)(&again, (void *)(uintptr_t)range));
    OK(CU(cuMemRelease)(again));
    OK(CU(cuMemUnmap)(range, 20 * MIB));
    OK(CU(cuMemRelease)(handle));
    CHECK_EQUAL(counted(0), before);

    CUmemoryPool pool;
    CUmemPoolPtrExportData pointer = offer->pointer;
    OK(CU(cuMemPoolImportFromShareableHandle)(&pool, (void *)(intptr_t)offer->pool, by_fd, 0));
    OK(CU(cuMemPoolImportPointer)(&at, pool, &pointer));
    CHECK(CU(cuMemAllocFromPoolAsync)(&range, MIB, pool, NULL) != CUDA_SUCCESS); /* the driver does not give there */
    OK(CU(cuMemFreeAsync)(at, NULL));
    OK(CU(cuMemPoolDestroy)(pool));
    CHECK_EQUAL(counted(0), before);

    CUexternalMemory image;
    OK(CU(cuImportExternalMemory)(&image, &(CUDA_EXTERNAL_MEMORY_HANDLE_DESC){.type = 1, .size = 500 * MIB}));
    OK(CU(cuExternalMemoryGetMappedBuffer)(&at, image, &(CUDA_EXTERNAL_MEMORY_BUFFER_DESC){.size = 400 * MIB}));
    OK(CU(cuMemFree_v2)(at));
    CHECK(CU(cuMemFree_v2)(at) != CUDA_SUCCESS);
    OK(CU(cuDestroyExternalMemory)(image));
    CHECK_EQUAL(counted(0), before);
}

static void check_multicast(void)
{
    CUmemGenericAllocationHandle multicast, a, b;
    CUdeviceptr range;
    OK(CU(cuMulticastCreate)(&multicast, &(CUmulticastObjectProp){.numDevices = 1, .size = 64 * MIB}));
    OK(CU(cuMulticastAddDevice)(multicast, 0));
    CHECK_EQUAL(counted(0), 0);
    OK(CU(cuMemCreate)(&a, 20 * MIB, &pinned, 0));
    OK(CU(cuMemCreate)(&b, 10 * MIB, &pinned, 0));
    OK(CU(cuMulticastBindMem)(multicast, 0, a, 0, 20 * MIB, 0));
    OK(CU(cuMemRelease)(a));
    OK(CU(cuMemAddressReserve)(&range, 10 * MIB, 0, 0, 0));
    OK(CU(cuMemMap)(range, 10 * MIB, 0, b, 0));
    OK(CU(cuMulticastBindAddr)(multicast, 20 * MIB, range, 10 * MIB, 0));
    OK(CU(cuMemRelease)(b));
    OK(CU(cuMemUnmap)(range, 10 * MIB));
    CHECK_EQUAL(counted(0), 30);
    CHECK(CU(cuMulticastUnbind)(multicast, 1, 0, 30 * MIB) != CUDA_SUCCESS);
    CHECK_EQUAL(counted(0), 30);
    OK(CU(cuMulticastUnbind)(multicast, 0, 0, 20 * MIB));
    CHECK_EQUAL(counted(0), 10);
    OK(CU(cuMulticastUnbind)(multicast, 0, 20 * MIB, 10 * MIB));
    CHECK_EQUAL(counted(0), 0);
}

/* The same by the forms that name a device. */
static void check_multicast_of_a_device(void)
{
    CUmemGenericAllocationHandle multicast, a, b;
    CUdeviceptr range;
    OK(CU(cuMulticastCreate)(&multicast, &(CUmulticastObjectProp){.numDevices = 1, .size = 64 * MIB}));
    OK(CU(cuMemCreate)(&a, 20 * MIB, &pinned, 0));
    OK(CU(cuMemCreate)(&b, 10 * MIB, &pinned, 0));
    OK(CU(cuMulticastBindMem_v2)(multicast, 0, 0, a, 0, 20 * MIB, 0));
    OK(CU(cuMemRelease)(a));
    OK(CU(cuMemAddressReserve)(&range, 10 * MIB, 0, 0, 0));
    OK(CU(cuMemMap)(range, 10 * MIB, 0, b, 0));
    OK(CU(cuMulticastBindAddr_v2)(multicast, 0, 20 * MIB, range, 10 * MIB, 0));
    OK(CU(cuMemRelease)(b));
    OK(CU(cuMemUnmap)(range, 10 * MIB));
    CHECK_EQUAL(counted(0), 30);
    OK(CU(cuMulticastUnbind)(multicast, 0, 0, 30 * MIB));
    CHECK_EQUAL(counted(0), 0);
}

int main(void)
{
    struct offer offer;
    CUdeviceptr a, pooled;
    CUmemGenericAllocationHandle handle;
    CUmemoryPool pool;
    use_device(0);
    OK(CU(cuMemAlloc_v2)(&a, 40 * MIB));
    OK(CU(cuIpcGetMemHandle)(&offer.linear, a));
    CHECK(CU(cuIpcOpenMemHandle_v2)(&pooled, offer.linear, 1) != CUDA_SUCCESS); /* not where it was made */
    OK(CU(cuMemCreate)(&handle, 20 * MIB, &pinned, 0));
    OK(CU(cuMemExportToShareableHandle)(&offer.physical, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    OK(CU(cuMemPoolCreate)(&pool, &(CUmemPoolProps){.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                                    .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}}));
    OK(CU(cuMemAllocFromPoolAsync)(&pooled, 10 * MIB, pool, NULL));
    OK(CU(cuMemPoolExportToShareableHandle)(&offer.pool, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    OK(CU(cuMemPoolExportPointer)(&offer.pointer, pooled));
    CHECK_EQUAL(counted(0), 92);
    pid_t child = fork();
    if (child == 0) {
        open_all(&offer, 92);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_EQUAL(counted(0), 92);
    OK(CU(cuMemRelease)(handle));
    OK(CU(cuMemFree_v2)(a));
    OK(CU(cuMemPoolDestroy)(pool));
    CHECK_EQUAL(counted(0), 0);
    check_multicast();
    check_multicast_of_a_device();
    return 0;
}
