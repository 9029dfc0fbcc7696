/* A program of another C library than glibc. With an argument it asks for the driver, as a GPU program would. */
#include <dlfcn.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

int main(int count, char **words)
{
    (void)words;
    pid_t (*own)(void) = (pid_t(*)(void))dlsym(RTLD_DEFAULT, "getpid");
    printf("getpid %d\n", own && own() == getpid());
    printf("absent %d\n", dlsym(RTLD_DEFAULT, "no_such_function") == NULL && dlerror() != NULL);
    if (count > 1) {
        void *driver = dlopen("libcuda.so.1", RTLD_LAZY);
        printf("driver %d\n", driver != NULL);
        printf("allocates %d\n", dlsym(driver ? driver : RTLD_DEFAULT, "cuMemAlloc_v2") != NULL);
    }
    return 0;
}
