/* What programs do with themselves while they use a device. Each prints one line of JSON numbers.
 *
 *     lives threads       eight threads allocate and free; the last answer is what a ninth can still get
 *     lives churns        the same eight threads, and no more; waits for a line before it ends
 *     lives exits         exit() while eight threads are in the driver
 *     lives forks         a child, and its child, each with a context of its own; results of each
 *     lives storms        forks forty children, which use the device, while eight threads are in the driver: how many
 *                         children ended well
 *     lives execs         holds memory, becomes `lives holds`
 *     lives holds         [MiB it could get]
 *     lives vforks        starts a program in the old way while holding memory
 *     lives daemon LOG    becomes a daemon that asks NVML, closes every descriptor and opens LOG in their place, then
 *                         uses the device and forks a worker; both write to LOG
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"

extern CUresult cuCtxSetCurrent(CUcontext context);

#define MIB ((size_t)1 << 20)

enum { DESCRIPTORS = 4096 };

static int taken; /* descriptors that the daemon has instead of those it closed */

static struct {
    __typeof__(&cuInit) init;
    __typeof__(&cuDevicePrimaryCtxRetain) retain;
    __typeof__(&cuCtxSetCurrent) set_current;
    __typeof__(&cuMemAlloc_v2) alloc;
    __typeof__(&cuMemFree_v2) release;
} cu;

static int use(void)
{
    CUcontext context;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver)
        return -1;
    *(void **)&cu.init = dlsym(driver, "cuInit");
    *(void **)&cu.retain = dlsym(driver, "cuDevicePrimaryCtxRetain");
    *(void **)&cu.set_current = dlsym(driver, "cuCtxSetCurrent");
    *(void **)&cu.alloc = dlsym(driver, "cuMemAlloc_v2");
    *(void **)&cu.release = dlsym(driver, "cuMemFree_v2");
    int rc = (int)cu.init(0);
    return rc ? rc : (rc = (int)cu.retain(&context, 0)) ? rc : (int)cu.set_current(context);
}

/* How many MiB can be had, in steps of ten. */
static int most(void)
{
    int mib = 0;
    CUdeviceptr at;
    while (mib < 10000 && cu.alloc(&at, 10 * MIB) == CUDA_SUCCESS)
        mib += 10;
    return mib;
}

static void *churn(void *endless)
{
    CUdeviceptr held[8] = {0};
    use();
    for (int i = 0; endless || i < 1500; i++) {
        CUdeviceptr *at = &held[i % 8];
        if (*at)
            cu.release(*at);
        if (cu.alloc(at, (size_t)(1 + i % 5) * MIB) != CUDA_SUCCESS)
            *at = 0;
    }
    for (int i = 0; i < 8; i++)
        if (held[i])
            cu.release(held[i]);
    return NULL;
}

static void start_threads(pthread_t threads[8], void *endless)
{
    for (int i = 0; i < 8; i++)
        if (pthread_create(&threads[i], NULL, churn, endless))
            exit(3);
}

static void run_threads(void)
{
    pthread_t running[8];
    start_threads(running, NULL);
    for (int i = 0; i < 8; i++)
        pthread_join(running[i], NULL);
}

static int threads(void)
{
    run_threads();
    int rc = use();
    printf("[%d, %d]\n", rc, most());
    return 0;
}

static int churns(void)
{
    run_threads();
    printf("[0]\n");
    fflush(stdout);
    getchar();
    return 0;
}

static int exits(void)
{
    pthread_t running[8];
    start_threads(running, (void *)1);
    usleep(20000);
    printf("[0]\n");
    exit(0);
}

/* What a child is told before and after it starts over, and what is left for it. */
static void report_child(const char *who)
{
    CUdeviceptr at;
    int inherited = (int)cu.alloc(&at, MIB);
    int rc = use();
    printf("[\"%s\", %d, %d, %d]\n", who, inherited, rc, (int)cu.alloc(&at, 50 * MIB));
    fflush(stdout);
}

static int forks(void)
{
    CUdeviceptr at;
    int rc = use();
    printf("[\"parent\", %d, %d]\n", rc, (int)cu.alloc(&at, 100 * MIB));
    fflush(stdout);
    if (fork() == 0) {
        report_child("child");
        if (fork() == 0) {
            report_child("grandchild");
            _exit(0);
        }
        wait(NULL);
        _exit(0);
    }
    wait(NULL);
    printf("[\"parent\", %d]\n", most());
    return 0;
}

static int storms(void)
{
    pthread_t running[8];
    int well = 0;
    start_threads(running, (void *)1);
    for (int i = 0; i < 40; i++) {
        CUdeviceptr at;
        int status = -1;
        pid_t child = fork();
        if (child == 0)
            _exit(use() || cu.alloc(&at, MIB) || cu.release(at));
        waitpid(child, &status, 0);
        well += status == 0;
    }
    printf("[%d]\n", well);
    fflush(stdout);
    _exit(0);
}

static int execs(char *self)
{
    CUdeviceptr at;
    char *words[] = {self, (char *)"holds", NULL};
    if (use() || cu.alloc(&at, 200 * MIB))
        return 1;
    execv(self, words);
    return 1;
}

static int holds(void)
{
    int rc = use();
    printf("[%d, %d]\n", rc, most());
    return 0;
}

static int vforks(char *self)
{
    CUdeviceptr at;
    char *words[] = {self, (char *)"holds", NULL};
    if (use() || cu.alloc(&at, 200 * MIB))
        return 1;
    pid_t child = vfork();
    if (child == 0) {
        execv(self, words);
        _exit(1);
    }
    waitpid(child, NULL, 0);
    printf("[%d]\n", most());
    return 0;
}

static void ask_nvml(void)
{
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    nvmlDevice_t device;
    nvmlMemory_t memory;
    if (!nvml || ((nvmlReturn_t(*)(void))dlsym(nvml, "nvmlInit_v2"))() ||
        ((nvmlReturn_t(*)(unsigned, nvmlDevice_t *))dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2"))(0, &device) ||
        ((nvmlReturn_t(*)(nvmlDevice_t, nvmlMemory_t *))dlsym(nvml, "nvmlDeviceGetMemoryInfo"))(device, &memory))
        exit(4);
}

static void become_daemon(const char *log)
{
    if (fork())
        _exit(0);
    setsid();
    if (fork())
        _exit(0);
    if (chdir("/"))
        _exit(5);
    umask(0);
    ask_nvml();
    bool open_before[DESCRIPTORS] = {[0] = true};
    for (int fd = 0; fd < DESCRIPTORS; fd++)
        open_before[fd] = close(fd) == 0 || fd == 0;
    if (open(log, O_WRONLY | O_CREAT | O_APPEND, 0600) != 0)
        _exit(6);
    for (int fd = 1; fd < DESCRIPTORS; fd++) /* whatever number the library had is the log's now */
        if (open_before[fd] && dup2(0, fd) == fd)
            taken++;
}

/* How many of the daemon's descriptors are not any more what it opened. */
static int lost(void)
{
    struct stat log, other;
    int same = 0;
    if (fstat(0, &log))
        return -1;
    for (int fd = 1; fd < DESCRIPTORS; fd++)
        same += fstat(fd, &other) == 0 && log.st_ino == other.st_ino;
    return taken - same;
}

static int daemon_life(const char *log)
{
    become_daemon(log);
    CUdeviceptr at;
    int rc = use();
    dprintf(0, "[\"daemon\", %d, %d, %d]\n", rc, (int)cu.alloc(&at, 100 * MIB), lost());
    pid_t worker = fork();
    if (worker == 0) {
        rc = use();
        dprintf(0, "[\"worker\", %d, %d, %d]\n", rc, most(), lost());
        _exit(0);
    }
    int status = -1;
    waitpid(worker, &status, 0);
    dprintf(0, "[\"end\", %d, %d]\n", status, lost());
    return 0;
}

int main(int count, char **words)
{
    const char *life = count > 1 ? words[1] : "";
    if (strcmp(life, "threads") == 0)
        return threads();
    if (strcmp(life, "churns") == 0)
        return churns();
    if (strcmp(life, "exits") == 0)
        return exits();
    if (strcmp(life, "forks") == 0)
        return forks();
    if (strcmp(life, "storms") == 0)
        return storms();
    if (strcmp(life, "execs") == 0)
        return execs(words[0]);
    if (strcmp(life, "holds") == 0)
        return holds();
    if (strcmp(life, "vforks") == 0)
        return vforks(words[0]);
    if (strcmp(life, "daemon") == 0 && count == 3)
        return daemon_life(words[2]);
    fprintf(stderr, "usage: lives threads|churns|exits|forks|storms|execs|holds|vforks|daemon LOG\n");
    return 2;
}
