/* A program linked to the driver library, and (RUNTIME) to the vendor's runtime. */
#include <stdio.h>

#ifdef RUNTIME
int cudaRuntimeGetVersion(int *version);
int cudaGetDeviceCount(int *count);

int main(void)
{
    int version = 0, count = -1, rc;
    cudaRuntimeGetVersion(&version);
    rc = cudaGetDeviceCount(&count);
    printf("[%d, %d]\n", version, rc);
    return 0;
}
#else
int plugin_probe(int mib, int more_mib, long out[4]);

int main(void)
{
    long out[4];
    int rc = plugin_probe(100, 700, out);
    printf("[%ld, %ld, %ld, %ld]\n", out[0], out[1], out[2], out[3]);
    return rc;
}
#endif
