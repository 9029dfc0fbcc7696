/* The two ways a program asks for driver functions: the C library's look-up functions, and the driver's own.
 *
 * Both answer with the driver's very pointer unless that function has a stand-in; then with the stand-in of exactly that
 * ABI. What the driver lacks stays absent. The look-up functions leave by a jump, not a call, when the request is none of
 * ours: the C library takes the caller from the return address (RTLD_NEXT, the search path of dlopen).
 */
#include <dlfcn.h>
#include <stdlib.h>

#include "genuine.h"
#include "hook.h"
#include "log.h"

/* Answer of the functions below: this request is not ours, the genuine function shall answer it. */
#define PASS ((void *)-1)

static void *route(void *handle, const char *symbol, const char *version)
{
    genuine_find();
    if (hook_inside > 0 || !symbol)
        return PASS;
    int id = hook_by_symbol(symbol);
    if (id < 0)
        return PASS;
    if (!genuine_usable())
        return NULL;
    enum hook_library library = hook_library(id);
    if (handle == RTLD_DEFAULT || handle == RTLD_NEXT) {
        /* Without us these find the driver if it is loaded. Asking the C library would find ourselves. */
        return hook_bind(library, false) && hook_genuine(id) ? hook_stand_in(id) : NULL;
    }
    void *found = version ? genuine.dlvsym(handle, symbol, version) : genuine.dlsym(handle, symbol);
    if (!found)
        return PASS; /* the genuine function says no, and leaves its message */
    if (found == hook_stand_in(id))
        return hook_bind(library, false) && hook_genuine(id) ? found : NULL;
    hook_bind_address(library, found);
    /* Something else of that name, such as a profiler's wrapper in its own library, is the program's business. */
    return found == hook_genuine(id) ? hook_stand_in(id) : PASS;
}

void *hami_route_dlsym(void *handle, const char *symbol) __attribute__((used));
void *hami_route_dlsym(void *handle, const char *symbol)
{
    return route(handle, symbol, NULL);
}

void *hami_route_dlvsym(void *handle, const char *symbol, const char *version) __attribute__((used));
void *hami_route_dlvsym(void *handle, const char *symbol, const char *version)
{
    return route(handle, symbol, version);
}

/* Flags for the genuine dlopen. An object opened with RTLD_DEEPBIND would look up symbols past us. */
int hami_route_dlopen(const char *path, int flags) __attribute__((used));
int hami_route_dlopen(const char *path, int flags)
{
    genuine_find();
    if (!genuine.glibc && path && hook_library_of_path(path) >= 0)
        genuine_usable(); /* the driver will not load either: say why */
    if ((flags & RTLD_DEEPBIND) == 0 || getenv("HAMI_KEEP_DEEPBIND"))
        return flags;
    log_line(LOG_DEBUG, "dlopen %s: without RTLD_DEEPBIND", path ? path : "(main)");
    return flags & ~RTLD_DEEPBIND;
}

/* The shown functions: save the arguments, ask the route, answer or jump. `genuine` holds dlsym, dlvsym, dlopen. */
#if defined(__x86_64__)
#define LOOKUP(name, place)                                                                                            \
    __asm__(".text\n.globl " #name "\n.type " #name ", @function\n.p2align 4\n" #name ":\n"                            \
            "    .cfi_startproc\n    endbr64\n"                                                                        \
            "    push %rdi\n    .cfi_adjust_cfa_offset 8\n"                                                            \
            "    push %rsi\n    .cfi_adjust_cfa_offset 8\n"                                                            \
            "    push %rdx\n    .cfi_adjust_cfa_offset 8\n"                                                            \
            "    call hami_route_" #name "\n"                                                                          \
            "    pop %rdx\n    .cfi_adjust_cfa_offset -8\n"                                                            \
            "    pop %rsi\n    .cfi_adjust_cfa_offset -8\n"                                                            \
            "    pop %rdi\n    .cfi_adjust_cfa_offset -8\n"                                                            \
            "    cmp $-1, %rax\n    je 1f\n    ret\n"                                                                  \
            "1:  jmp *genuine+" #place "(%rip)\n"                                                                      \
            "    .cfi_endproc\n.size " #name ", .-" #name "\n")
LOOKUP(dlsym, 0);
LOOKUP(dlvsym, 8);
__asm__(".text\n.globl dlopen\n.type dlopen, @function\n.p2align 4\ndlopen:\n"
        "    .cfi_startproc\n    endbr64\n"
        "    push %rdi\n    .cfi_adjust_cfa_offset 8\n"
        "    call hami_route_dlopen\n"
        "    pop %rdi\n    .cfi_adjust_cfa_offset -8\n"
        "    mov %eax, %esi\n"
        "    jmp *genuine+16(%rip)\n"
        "    .cfi_endproc\n.size dlopen, .-dlopen\n");
#elif defined(__aarch64__)
#define LOOKUP(name, place)                                                                                            \
    __asm__(".text\n.globl " #name "\n.type " #name ", %function\n.p2align 4\n" #name ":\n"                            \
            "    .cfi_startproc\n"                                                                                     \
            "    stp x29, x30, [sp, -48]!\n    .cfi_def_cfa_offset 48\n"                                               \
            "    .cfi_offset x29, -48\n    .cfi_offset x30, -40\n"                                                     \
            "    stp x0, x1, [sp, 16]\n    str x2, [sp, 32]\n"                                                         \
            "    bl hami_route_" #name "\n"                                                                            \
            "    cmn x0, #1\n    b.eq 1f\n"                                                                            \
            "    ldp x29, x30, [sp], 48\n    ret\n"                                                                    \
            "1:  ldp x0, x1, [sp, 16]\n    ldr x2, [sp, 32]\n"                                                         \
            "    ldp x29, x30, [sp], 48\n"                                                                             \
            "    adrp x16, genuine\n    add x16, x16, :lo12:genuine\n"                                                 \
            "    ldr x16, [x16, " #place "]\n    br x16\n"                                                             \
            "    .cfi_endproc\n.size " #name ", .-" #name "\n")
LOOKUP(dlsym, 0);
LOOKUP(dlvsym, 8);
__asm__(".text\n.globl dlopen\n.type dlopen, %function\n.p2align 4\ndlopen:\n"
        "    .cfi_startproc\n"
        "    stp x29, x30, [sp, -32]!\n    .cfi_def_cfa_offset 32\n"
        "    .cfi_offset x29, -32\n    .cfi_offset x30, -24\n"
        "    str x0, [sp, 16]\n    bl hami_route_dlopen\n"
        "    mov w1, w0\n    ldr x0, [sp, 16]\n    ldp x29, x30, [sp], 32\n"
        "    adrp x16, genuine\n    add x16, x16, :lo12:genuine\n    ldr x16, [x16, 16]\n    br x16\n"
        "    .cfi_endproc\n.size dlopen, .-dlopen\n");
#else
#error "write the look-up functions for this machine"
#endif

/* ---- the driver's own look-up */

/* The stand-in for an address that is none of the driver's symbols we know: an inner entry, which then the request names,
 * or a function of an ABI newer than our rows, which has a symbol of its own and is left alone. */
static void *stand_in_for_request(const void *address, const char *symbol, int version, bool per_thread)
{
    int id = hook_by_request(symbol, version, per_thread);
    if (id < 0 || !hook_genuine(id))
        return NULL;
    Dl_info info;
    bool own_symbol = dladdr(address, &info) && info.dli_saddr == address;
    return own_symbol ? NULL : hook_stand_in(id);
}

static void substitute(const char *symbol, void **pfn, int version, cuuint64_t flags)
{
    void *stand_in = hook_for_address(*pfn);
    if (!stand_in)
        stand_in = stand_in_for_request(*pfn, symbol, version, flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM);
    if (stand_in)
        *pfn = stand_in;
}

CUresult cuGetProcAddress(const char *symbol, void **pfn, int version, cuuint64_t flags)
{
    NEED_CUDA(cuGetProcAddress);
    CUresult rc = FORWARD(cuGetProcAddress(symbol, pfn, version, flags));
    if (rc == CUDA_SUCCESS && symbol && pfn && *pfn)
        substitute(symbol, pfn, version, flags);
    return rc;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *status)
{
    NEED_CUDA(cuGetProcAddress_v2);
    CUresult rc = FORWARD(cuGetProcAddress_v2(symbol, pfn, version, flags, status));
    if (rc == CUDA_SUCCESS && symbol && pfn && *pfn)
        substitute(symbol, pfn, version, flags);
    return rc;
}
