/*
 * What the parts of the simulated CUDA driver share: entry checks, objects behind handles, contexts, streams.
 * Locks: one per process (`local`), taken before the machine's lock and never held across a wait.
 */
#ifndef SIM_CUDA_H
#define SIM_CUDA_H

#include <pthread.h>

#include "driver_more.h"
#include "state.h"

/* First line of every entry point: act out a described fault, refuse before cuInit and on a lost device. */
#define ENTER()                                                                                                        \
    do {                                                                                                               \
        int entered_;                                                                                                  \
        if (sim && sim->fault_count && (fault_hits(__func__, &entered_) || device_lost(__func__, &entered_)))           \
            return (CUresult)entered_;                                                                                 \
        if (!cuda_ready())                                                                                             \
            return CUDA_ERROR_NOT_INITIALIZED;                                                                         \
    } while (0)

/* An entry point with a twin for programs built for per-thread default streams. The body follows; it names its stream
 * argument `stream`. */
#define STREAM_CALL(name, twin, formals, ...)                                                                          \
    static CUresult on_##name formals;                                                                                 \
    SIM_API CUresult name formals                                                                                      \
    {                                                                                                                  \
        ENTER();                                                                                                       \
        return on_##name(__VA_ARGS__);                                                                                 \
    }                                                                                                                  \
    SIM_API CUresult name##twin formals                                                                                \
    {                                                                                                                  \
        ENTER();                                                                                                       \
        if (!stream)                                                                                                   \
            stream = CU_STREAM_PER_THREAD;                                                                             \
        return on_##name(__VA_ARGS__);                                                                                 \
    }                                                                                                                  \
    static CUresult on_##name formals

/* The same for a synchronous call, which has no stream argument. */
#define PLAIN_TWINS(name, twin, formals, ...)                                                                          \
    static CUresult on_##name formals;                                                                                 \
    SIM_API CUresult name formals                                                                                      \
    {                                                                                                                  \
        ENTER();                                                                                                       \
        return on_##name(__VA_ARGS__);                                                                                 \
    }                                                                                                                  \
    SIM_API CUresult name##twin formals                                                                                \
    {                                                                                                                  \
        ENTER();                                                                                                       \
        return on_##name(__VA_ARGS__);                                                                                 \
    }                                                                                                                  \
    static CUresult on_##name formals

enum object_kind {
    OBJECT_FREE = 0,
    OBJECT_CONTEXT = 0x51001,
    OBJECT_STREAM,
    OBJECT_EVENT,
    OBJECT_MODULE,
    OBJECT_FUNCTION,
    OBJECT_POOL,
    OBJECT_PHYSICAL,
    OBJECT_ARRAY,
    OBJECT_MIPMAP,
    OBJECT_GRAPH,
    OBJECT_NODE,
    OBJECT_EXEC,
    OBJECT_EXTERNAL,
    OBJECT_MULTICAST,
    OBJECT_KINDS_END
};

/* First member of everything behind a handle. Its memory is kept after the object's end (and used again for the same
 * kind), so that a stale handle is refused instead of crashing. */
struct object {
    enum object_kind kind;
    unsigned generation; /* of the process that made it: a forked child refuses its parent's */
    struct object *next; /* of the free ones */
};

void *object_new(size_t size, enum object_kind kind); /* zeroed; NULL without memory */
void object_end(void *object);
bool object_is(const void *object, enum object_kind kind);

extern pthread_mutex_t local;

/* cuInit was called in this process. */
bool cuda_ready(void);
int cuda_device_count(void);

/* True when `call` cannot do its work because the current context's device is lost: answer *result. */
bool device_lost(const char *call, int *result);

/* The unit behind a CUDA ordinal, an index into sim->devices; -1 when there is none. */
int cuda_device(CUdevice ordinal);
CUdevice cuda_ordinal(int device);

struct CUstream_st {
    struct object object;
    CUcontext context;
    unsigned flags;
    int priority;
    u64 id;
    u64 last;                /* number of its last kernel, timeline.h */
    u64 hosted, hosted_done; /* host functions queued and run */
    CUgraph capture;         /* NULL = not capturing */
};

struct CUctx_st {
    struct object object;
    int device;
    bool primary;
    unsigned flags;
    unsigned retains;
    unsigned api_version;
    u64 id;
    size_t limits[CU_LIMIT_MAX];
    u64 peers;                     /* bit a device: peer access enabled */
    struct CUstream_st legacy;     /* the default stream */
    struct CUstream_st per_thread; /* the per-thread default stream; one for all threads here */
};

/* The calling thread's current context, or NULL. */
CUcontext context_current(void);
/* End every use of contexts' memory; used by reset and destroy. */
void context_memory_drop(CUcontext context);
void context_modules_drop(CUcontext context);
void context_arrays_drop(CUcontext context);

/* The stream behind a handle in the current context; NULL = invalid. */
CUstream stream_of(CUstream handle);

/* Queue `work_ns` of device time on a stream, or add it to the graph being captured. */
CUresult stream_work(CUstream stream, u64 work_ns);

/* Number behind which everything submitted so far to the stream is done. */
u64 stream_last(CUstream stream);

/* A node is one piece of device time in a graph. */
CUresult graph_add(CUgraph graph, u64 work_ns);

/* Device time of a launch of `function`. */
u64 function_work(CUfunction function, u64 blocks, u64 threads);

#endif
