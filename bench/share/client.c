/* One program that loads a device in a described way and tells when it had it.
 *
 *     client calibrate                    microseconds that a million rounds of the kernel's loop take
 *     client run EPOCH_NS FROM_S TO_S KERNEL_NS ROUNDS DEPTH GRAPH ON_MS OFF_MS
 *     client late EPOCH_NS TO_S           how late this machine wakes programs: milliseconds, nineteen of twenty times less
 *
 * `run` launches kernels of KERNEL_NS between FROM_S and TO_S after EPOCH_NS on the monotonic clock, DEPTH outstanding
 * at a time (1 = each is waited for), GRAPH of them as one CUDA graph (0 = single kernels); with ON_MS, it works so long
 * and then rests OFF_MS, again and again. At the end it prints one JSON object: device time had, in nanoseconds a bin of
 * 10 ms since the epoch, each kernel's spread evenly from when it could begin to when its end was seen; and launches.
 *
 * The kernel is a loop of ROUNDS rounds in one thread, compiled by the driver from the text below. The simulated driver
 * takes the time from its name instead. Functions are found as the CUDA runtime finds them: dlopen, then dlsym.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "driver.h"

#define NS_PER_S 1000000000ULL
#define BIN_NS 10000000ULL
enum { BINS = 60000, DEPTH_MOST = 64 };

static CUfunction kernel;
static CUstream stream;
static unsigned long long rounds;
static unsigned long long epoch;
static double bins[BINS];

/* The calls made, as the driver's header declares them. */
#define CALLS(CALL)                                                                                                    \
    CALL(cuInit, unsigned)                                                                                             \
    CALL(cuDeviceGet, CUdevice *, int)                                                                                 \
    CALL(cuDevicePrimaryCtxRetain, CUcontext *, CUdevice)                                                              \
    CALL(cuCtxSetCurrent, CUcontext)                                                                                   \
    CALL(cuModuleLoadData, CUmodule *, const void *)                                                                   \
    CALL(cuModuleGetFunction, CUfunction *, CUmodule, const char *)                                                    \
    CALL(cuStreamCreate, CUstream *, unsigned)                                                                         \
    CALL(cuLaunchKernel, CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,   \
         void **, void **)                                                                                             \
    CALL(cuStreamBeginCapture_v2, CUstream, int)                                                                       \
    CALL(cuStreamEndCapture, CUstream, CUgraph *)                                                                      \
    CALL(cuGraphInstantiateWithFlags, CUgraphExec *, CUgraph, unsigned long long)                                      \
    CALL(cuGraphLaunch, CUgraphExec, CUstream)                                                                         \
    CALL(cuEventCreate, CUevent *, unsigned)                                                                           \
    CALL(cuEventRecord, CUevent, CUstream)                                                                             \
    CALL(cuEventSynchronize, CUevent)                                                                                  \
    CALL(cuEventElapsedTime, float *, CUevent, CUevent)
#define CALL(name, ...) CUresult (*name)(__VA_ARGS__);
static struct {
    CALLS(CALL)
} cu;
#undef CALL
enum { NON_BLOCKING = 1, THREAD_LOCAL_CAPTURE = 1, DISABLE_TIMING = 2 };

static void check(CUresult rc, const char *what)
{
    if (rc == CUDA_SUCCESS)
        return;
    fprintf(stderr, "%s: error %d\n", what, (int)rc);
    exit(1);
}

static unsigned long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (unsigned long long)t.tv_sec * NS_PER_S + (unsigned long long)t.tv_nsec;
}

static void sleep_until(unsigned long long at)
{
    struct timespec t = {.tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        continue;
}

/* A chain of dependent multiplications that no compiler can shorten; the store never happens. */
static const char text[] = ".version 6.0\n.target sm_50\n.address_size 64\n"
                           ".visible .entry %s(.param .u64 rounds, .param .u64 out)\n"
                           "{\n.reg .pred %%p;\n.reg .u32 %%x;\n.reg .u64 %%i, %%n, %%a;\n"
                           "ld.param.u64 %%n, [rounds];\nld.param.u64 %%a, [out];\n"
                           "mov.u64 %%i, 0;\ncvt.u32.u64 %%x, %%n;\n"
                           "again:\nmad.lo.u32 %%x, %%x, 1664525, 1013904223;\n"
                           "add.u64 %%i, %%i, 1;\nsetp.lt.u64 %%p, %%i, %%n;\n@%%p bra again;\n"
                           "setp.eq.u64 %%p, %%a, 0;\n@%%p bra done;\nst.global.u32 [%%a], %%x;\n"
                           "done:\nret;\n}\n";

static void open_driver(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
        fprintf(stderr, "libcuda.so.1 cannot be loaded\n");
        exit(1);
    }
#define CALL(name, ...) check((*(void **)&cu.name = dlsym(library, #name)) ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND, #name);
    CALLS(CALL)
#undef CALL
}

static void prepare(unsigned long long kernel_ns)
{
    char name[48], image[sizeof text + 48];
    CUdevice device;
    CUcontext context;
    CUmodule module;
    open_driver();
    check(cu.cuInit(0), "cuInit");
    check(cu.cuDeviceGet(&device, 0), "cuDeviceGet");
    check(cu.cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
    check(cu.cuCtxSetCurrent(context), "cuCtxSetCurrent");
    snprintf(name, sizeof name, "sim_ns_%llu", kernel_ns);
    snprintf(image, sizeof image, text, name);
    check(cu.cuModuleLoadData(&module, image), "cuModuleLoadData");
    check(cu.cuModuleGetFunction(&kernel, module, name), "cuModuleGetFunction");
    check(cu.cuStreamCreate(&stream, NON_BLOCKING), "cuStreamCreate");
}

static void launch(void)
{
    unsigned long long out = 0;
    void *params[] = {&rounds, &out};
    check(cu.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL), "cuLaunchKernel");
}

static CUgraphExec graph_of(int kernels)
{
    CUgraph graph;
    CUgraphExec exec;
    check(cu.cuStreamBeginCapture_v2(stream, THREAD_LOCAL_CAPTURE), "cuStreamBeginCapture_v2");
    for (int i = 0; i < kernels; i++)
        launch();
    check(cu.cuStreamEndCapture(stream, &graph), "cuStreamEndCapture");
    check(cu.cuGraphInstantiateWithFlags(&exec, graph, 0), "cuGraphInstantiateWithFlags");
    return exec;
}

/* Spread `work` ns of device time evenly over [from, to). */
static void book(unsigned long long from, unsigned long long to, double work)
{
    double density = to > from ? work / (double)(to - from) : 0;
    if (from < epoch || to <= from)
        return;
    for (unsigned long long at = from; at < to;) {
        unsigned long long bin = (at - epoch) / BIN_NS, end = epoch + (bin + 1) * BIN_NS;
        if (bin >= BINS)
            return;
        if (end > to)
            end = to;
        bins[bin] += density * (double)(end - at);
        at = end;
    }
}

struct pending {
    CUevent end;
    unsigned long long launched;
};

/* Works from `from` to `to`; returns how often it launched. */
static unsigned long work(unsigned long long from, unsigned long long to, double each_ns, int depth, CUgraphExec graph)
{
    static struct pending ring[DEPTH_MOST];
    unsigned long launched = 0, done = 0;
    unsigned long long last = 0;
    sleep_until(from);
    for (int i = 0; i < depth && !ring[i].end; i++)
        check(cu.cuEventCreate(&ring[i].end, DISABLE_TIMING), "cuEventCreate");
    while (done < launched || now_ns() < to) {
        if (launched - done < (unsigned long)depth && now_ns() < to) {
            struct pending *next = &ring[launched++ % (unsigned long)depth];
            if (graph)
                check(cu.cuGraphLaunch(graph, stream), "cuGraphLaunch");
            else
                launch();
            check(cu.cuEventRecord(next->end, stream), "cuEventRecord");
            next->launched = now_ns(); /* the library may have held the launch back: the kernel begins now */
            continue;
        }
        struct pending *oldest = &ring[done++ % (unsigned long)depth];
        check(cu.cuEventSynchronize(oldest->end), "cuEventSynchronize");
        unsigned long long ended = now_ns();
        book(oldest->launched > last ? oldest->launched : last, ended, each_ns);
        last = ended;
    }
    return launched;
}

static int run(char **words)
{
    epoch = strtoull(words[0], NULL, 10);
    unsigned long long from = epoch + (unsigned long long)(atof(words[1]) * 1e9);
    unsigned long long to = epoch + (unsigned long long)(atof(words[2]) * 1e9);
    unsigned long long kernel_ns = strtoull(words[3], NULL, 10);
    int depth = atoi(words[5]), kernels = atoi(words[6]);
    unsigned long long on = strtoull(words[7], NULL, 10) * 1000000, off = strtoull(words[8], NULL, 10) * 1000000;
    unsigned long launched = 0;
    rounds = strtoull(words[4], NULL, 10);
    if (depth < 1 || depth > DEPTH_MOST || kernel_ns == 0 || to <= from)
        return 2;
    prepare(kernel_ns);
    CUgraphExec graph = kernels > 0 ? graph_of(kernels) : NULL;
    double each_ns = (double)kernel_ns * (kernels > 0 ? kernels : 1);
    for (unsigned long long at = from; at < to; at += on ? on + off : to - from) {
        unsigned long long end = on && at + on < to ? at + on : to;
        launched += work(at, end, each_ns, depth, graph);
    }
    printf("{\"launches\": %lu, \"bins\": [", launched);
    unsigned long long used = (to - epoch) / BIN_NS + 1;
    for (unsigned long long i = 0; i < used && i < BINS; i++)
        printf("%s%.0f", i ? "," : "", bins[i]);
    printf("]}\n");
    return 0;
}

static int calibrate(void)
{
    CUevent begun, ended;
    float ms, least = 0;
    prepare(1000000);
    check(cu.cuEventCreate(&begun, 0), "cuEventCreate");
    check(cu.cuEventCreate(&ended, 0), "cuEventCreate");
    rounds = 1000000;
    for (int i = 0; i < 20; i++) {
        check(cu.cuEventRecord(begun, stream), "cuEventRecord");
        launch();
        check(cu.cuEventRecord(ended, stream), "cuEventRecord");
        check(cu.cuEventSynchronize(ended), "cuEventSynchronize");
        check(cu.cuEventElapsedTime(&ms, begun, ended), "cuEventElapsedTime");
        if (least == 0 || ms < least)
            least = ms;
    }
    printf("%.3f\n", (double)least * 1000);
    return 0;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Asks to be woken every 2 ms, as a program is whose kernel ends. */
static int late(char **words)
{
    static double late_ms[BINS];
    unsigned long long at = strtoull(words[0], NULL, 10), to = at + (unsigned long long)(atof(words[1]) * 1e9);
    int times = 0;
    for (; at < to && times < BINS; at += 2000000) {
        if (at < now_ns())
            continue;
        sleep_until(at);
        late_ms[times++] = (double)(now_ns() - at) / 1e6;
    }
    qsort(late_ms, (size_t)times, sizeof late_ms[0], by_size);
    printf("%.3f\n", times ? late_ms[times * 19 / 20] : 0.0);
    return 0;
}

int main(int count, char **words)
{
    if (count == 4 && strcmp(words[1], "late") == 0)
        return late(words + 2);
    if (count == 2 && strcmp(words[1], "calibrate") == 0)
        return calibrate();
    return count == 11 && strcmp(words[1], "run") == 0 ? run(words + 2) : 2;
}
