/* Waits. A pool gives what it keeps without need back to the device when its program waits for the device, which nothing
 * else tells us; until we notice, the container's other processes would be refused what is free. */
#include "pool.h"

static CUresult waited(CUresult rc)
{
    if (rc == CUDA_SUCCESS && hook_inside == 0 && process_phase() == PROCESS_READY)
        pool_refresh();
    return rc;
}

CUresult cuStreamSynchronize(CUstream stream)
{
    NEED_CUDA(cuStreamSynchronize);
    return waited(FORWARD(cuStreamSynchronize(stream)));
}

CUresult cuStreamSynchronize_ptsz(CUstream stream)
{
    NEED_CUDA(cuStreamSynchronize_ptsz);
    return waited(FORWARD(cuStreamSynchronize_ptsz(stream)));
}

CUresult cuEventSynchronize(CUevent event)
{
    NEED_CUDA(cuEventSynchronize);
    return waited(FORWARD(cuEventSynchronize(event)));
}

CUresult cuCtxSynchronize(void)
{
    NEED_CUDA(cuCtxSynchronize);
    return waited(FORWARD(cuCtxSynchronize()));
}

CUresult cuCtxSynchronize_v2(CUcontext context)
{
    NEED_CUDA(cuCtxSynchronize_v2);
    return waited(FORWARD(cuCtxSynchronize_v2(context)));
}
