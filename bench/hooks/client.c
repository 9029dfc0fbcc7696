/* Times one kind of call: `client OPERATION CALLS REPETITIONS` prints ns of thread CPU time a call, one line a repetition.
 * `client hold N` makes N processes that hold memory until its input ends, and says so. `client init 0` calls cuInit and
 * ends. `client race MIB` allocates pieces of so many MiB until one is refused, says how many it has, and keeps them until
 * its input ends. `client spawn TIMES WIDTH LIBRARY PROGRAM ARGUMENT...` starts WIDTH such programs at once with LIBRARY
 * ("" = none) preloaded, TIMES over, and prints microseconds of wall time until the last has ended and of CPU time a
 * program, a line each time. Functions are found as the CUDA runtime finds them: dlopen, then dlsym. */
#include <dlfcn.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"

static void *cuda, *nvml;

#define CU(function) ((__typeof__(&function))dlsym(cuda, #function))
#define NVML(function) ((__typeof__(&function))dlsym(nvml, #function))

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double alloc_free(long calls, long live)
{
    __typeof__(&cuMemAlloc_v2) alloc = CU(cuMemAlloc_v2);
    __typeof__(&cuMemFree_v2) release = CU(cuMemFree_v2);
    CUdeviceptr *held = calloc((size_t)live + 1, sizeof *held);
    for (long i = 0; i < live; i++)
        alloc(&held[i], 512);
    CUdeviceptr address;
    double begun = cpu_ns();
    for (long i = 0; i < calls; i++) {
        if (alloc(&address, 512) != CUDA_SUCCESS)
            exit(3);
        release(address);
    }
    double took = cpu_ns() - begun;
    for (long i = 0; i < live; i++)
        release(held[i]);
    free(held);
    return took;
}

static double launch(long calls)
{
    __typeof__(&cuLaunchKernel) run = CU(cuLaunchKernel);
    double begun = cpu_ns();
    for (long i = 0; i < calls; i++)
        run((CUfunction)8, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL);
    return cpu_ns() - begun;
}

static double memory_info(long calls)
{
    __typeof__(&cuMemGetInfo_v2) info = CU(cuMemGetInfo_v2);
    size_t a, b;
    double begun = cpu_ns();
    for (long i = 0; i < calls; i++)
        info(&a, &b);
    return cpu_ns() - begun;
}

static double nvml_info(long calls)
{
    __typeof__(&nvmlDeviceGetMemoryInfo) info = NVML(nvmlDeviceGetMemoryInfo);
    nvmlMemory_t memory;
    double begun = cpu_ns();
    for (long i = 0; i < calls; i++)
        info((nvmlDevice_t)8, &memory);
    return cpu_ns() - begun;
}

static double look_up(long calls, const char *name)
{
    __typeof__(&cuGetProcAddress_v2) get = CU(cuGetProcAddress_v2);
    void *found;
    double begun = cpu_ns();
    for (long i = 0; i < calls; i++)
        get(name, &found, 12000, 0, NULL);
    return cpu_ns() - begun;
}

static double symbol(long calls, const char *name)
{
    double begun = cpu_ns();
    for (long i = 0; i < calls; i++)
        if (!dlsym(cuda, name))
            exit(3);
    return cpu_ns() - begun;
}

static double run(const char *operation, long calls)
{
    if (strcmp(operation, "alloc_free") == 0)
        return alloc_free(calls, 0);
    if (strcmp(operation, "alloc_free_1000_live") == 0)
        return alloc_free(calls, 1000);
    if (strcmp(operation, "alloc_free_10000_live") == 0)
        return alloc_free(calls, 10000);
    if (strcmp(operation, "launch") == 0 || strcmp(operation, "launch_limited") == 0)
        return launch(calls);
    if (strcmp(operation, "memory_info") == 0)
        return memory_info(calls);
    if (strcmp(operation, "nvml_memory_info") == 0)
        return nvml_info(calls);
    if (strcmp(operation, "look_up_hooked") == 0)
        return look_up(calls, "cuMemAlloc");
    if (strcmp(operation, "look_up_other") == 0)
        return look_up(calls, "cuInit");
    if (strcmp(operation, "dlsym_hooked") == 0)
        return symbol(calls, "cuMemAlloc_v2");
    if (strcmp(operation, "dlsym_other") == 0)
        return symbol(calls, "cuInit");
    exit(2);
}

static int hold(long count)
{
    int ready[2];
    char byte;
    if (pipe(ready) != 0)
        return 1;
    for (long i = 0; i < count; i++) {
        if (fork() == 0) {
            CUdeviceptr address;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            CU(cuMemAlloc_v2)(&address, 512);
            if (write(ready[1], "x", 1) == 1)
                pause();
            _exit(1);
        }
    }
    for (long i = 0; i < count; i++)
        if (read(ready[0], &byte, 1) != 1)
            return 1;
    puts("ready");
    fflush(stdout);
    return read(STDIN_FILENO, &byte, 1) < 0;
}

static int race(long mib)
{
    long pieces = 0;
    CUdeviceptr address;
    char byte;
    while (CU(cuMemAlloc_v2)(&address, (size_t)mib << 20) == CUDA_SUCCESS)
        pieces++;
    printf("%ld\n", pieces);
    fflush(stdout);
    return read(STDIN_FILENO, &byte, 1) < 0;
}

static double wall_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double us(struct timeval t) { return (double)t.tv_sec * 1e6 + (double)t.tv_usec; }

static int spawn(long times, long width, const char *library, char **program)
{
    extern char **environ;
    if (*library)
        setenv("LD_PRELOAD", library, 1);
    for (long i = 0; i < times; i++) {
        double begun = wall_us(), cpu = 0;
        int status;
        struct rusage use;
        for (long k = 0; k < width; k++) {
            pid_t pid;
            if (posix_spawn(&pid, program[0], NULL, NULL, program, environ) != 0)
                return 1;
        }
        for (long k = 0; k < width; k++) {
            if (wait4(-1, &status, 0, &use) < 0 || status != 0)
                return 1;
            cpu += us(use.ru_utime) + us(use.ru_stime);
        }
        printf("%.1f %.1f\n", wall_us() - begun, cpu / (double)width);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 6 && strcmp(argv[1], "spawn") == 0)
        return spawn(atol(argv[2]), atol(argv[3]), argv[4], argv + 5);
    if (argc < 3 || argc > 4)
        return 2;
    cuda = dlopen("libcuda.so.1", RTLD_LAZY);
    nvml = dlopen("libnvidia-ml.so.1", RTLD_LAZY);
    if (!cuda || !nvml || CU(cuInit)(0) != CUDA_SUCCESS)
        return 1;
    long calls = atol(argv[2]);
    if (strcmp(argv[1], "init") == 0)
        return 0;
    if (strcmp(argv[1], "race") == 0)
        return race(calls);
    if (argc == 3)
        return hold(calls);
    run(argv[1], calls / 10); /* caches, branch predictors, first-call work */
    for (long i = atol(argv[3]); i > 0; i--)
        printf("%.2f\n", run(argv[1], calls) / (double)calls);
    return 0;
}
