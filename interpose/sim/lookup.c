/* cuGetProcAddress in both forms, and the entry points that have no body. */
#include "lookup.h"

#include <string.h>

#include "cuda_sim.h"

int cuda_unsupported(const char *symbol)
{
    int result;
    if (sim && sim->fault_count && fault_hits(symbol, &result))
        return result;
    return cuda_ready() ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_NOT_INITIALIZED;
}

/* First row of `name`, or NULL. */
static const struct symbol *first_row(const char *name)
{
    int low = 0, high = cuda_symbol_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (strcmp(cuda_symbols[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < cuda_symbol_count && strcmp(cuda_symbols[low].name, name) == 0 ? &cuda_symbols[low] : NULL;
}

/* The newest calling convention that `version` and this driver know; of the per-thread family where that is asked and
 * exists. */
static CUresult get(const char *name, void **out, int version, u64 flags, CUdriverProcAddressQueryResult *status)
{
    if (!name || !out || flags > CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)
        return CUDA_ERROR_INVALID_VALUE;
    int newest = state_map() ? (int)sim->cuda_version : version;
    if (version > newest)
        return CUDA_ERROR_INVALID_VALUE;
    const struct symbol *best = NULL, *row = first_row(name), *end = cuda_symbols + cuda_symbol_count;
    bool known = false;
    for (; row && row < end && strcmp(row->name, name) == 0; row++) {
        bool twin = row->family != FAMILY_legacy;
        if (row->version > newest || fault_absent(row->symbol) ||
            (twin && flags != CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM))
            continue;
        known = true;
        if (row->version > version)
            continue;
        bool better = !best || (twin && best->family == FAMILY_legacy) ||
                      (twin == (best->family != FAMILY_legacy) && row->version > best->version);
        if (better)
            best = row;
    }
    *out = best ? best->function : NULL;
    if (status)
        *status = best    ? CU_GET_PROC_ADDRESS_SUCCESS
                  : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                          : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return CUDA_SUCCESS;
}

/* The first form has no status, so it says in its result that there is no such function. Both work before cuInit. */
SIM_API CUresult cuGetProcAddress(const char *symbol, void **out, int version, cuuint64_t flags)
{
    int result;
    if (state_map() && fault_hits(__func__, &result))
        return (CUresult)result;
    CUresult rc = get(symbol, out, version, flags, NULL);
    return rc == CUDA_SUCCESS && !*out ? CUDA_ERROR_NOT_FOUND : rc;
}

SIM_API CUresult cuGetProcAddress_v2(const char *symbol, void **out, int version, cuuint64_t flags,
                                     CUdriverProcAddressQueryResult *status)
{
    int result;
    if (state_map() && fault_hits(__func__, &result))
        return (CUresult)result;
    return get(symbol, out, version, flags, status);
}

/* The opaque tables of the vendor's own runtime are not offered. */
SIM_API CUresult cuGetExportTable(const void **table, const CUuuid *id)
{
    if (!table || !id)
        return CUDA_ERROR_INVALID_VALUE;
    *table = NULL;
    return CUDA_ERROR_NOT_FOUND;
}
