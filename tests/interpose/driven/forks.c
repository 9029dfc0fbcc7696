/* A fork's child holds nothing of its parent's, has a slot of its own, and does not keep its parent's alive. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driven.h"

int main(void)
{
    use_device(0);
    CUdeviceptr a;
    OK(CU(cuMemAlloc_v2)(&a, 40 * MIB));
    pid_t child = fork();
    if (child == 0) {
        CHECK_EQUAL(counted(0), 40);
        use_device(0);
        CUdeviceptr b;
        CHECK_EQUAL(CU(cuMemAlloc_v2)(&b, 70 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
        OK(CU(cuMemAlloc_v2)(&b, 50 * MIB));
        CHECK_EQUAL(counted(0), 90);
        kill(getpid(), SIGKILL);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    /* The dead child's part is there again at the first need. */
    CUdeviceptr b;
    OK(CU(cuMemAlloc_v2)(&b, 60 * MIB));
    CHECK_EQUAL(counted(0), 100);

    /* A child that only lingers leaves the parent's slot to die with the parent. */
    int hold[2];
    CHECK(pipe(hold) == 0);
    pid_t parent = fork();
    if (parent == 0) {
        use_device(0); /* takes a slot */
        if (fork() == 0) {
            char x;
            close(hold[1]);
            CHECK(read(hold[0], &x, 1) == 0);
            _exit(0);
        }
        _exit(0);
    }
    CHECK(waitpid(parent, &status, 0) == parent);
    struct region region;
    CHECK(region_open(&region, getenv("REGION")) == 0);
    region_reap(&region, false);
    int slots = 0;
    for (int slot = 0; slot < REGION_SLOTS; slot++)
        slots += region.ext->claims[slot].pid != 0;
    CHECK_EQUAL(slots, 1);
    return 0;
}
