/* Things that go wrong on purpose: calls that fail, are late, absent or deadly, and devices that are lost. */
#include <string.h>

#include "state.h"

bool fault_absent(const char *call)
{
    for (u32 i = 0; sim && i < sim->fault_count; i++)
        if (sim->faults[i].absent && strcmp(sim->faults[i].call, call) == 0)
            return true;
    return false;
}

/* A number of the same 64 bits for the same call, unlike that of the call before: runs can be repeated. */
static u64 scrambled(u64 turn, u32 row)
{
    u64 z = (turn << 8 | row) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static u64 delay_of(const struct sim_fault *fault, u64 turn, u32 row)
{
    return fault->delay_ns + (fault->random_ns ? scrambled(turn, row) % fault->random_ns : 0);
}

bool fault_hits(const char *call, int *result)
{
    bool answered = false;
    for (u32 i = 0; sim && i < sim->fault_count; i++) {
        struct sim_fault *fault = &sim->faults[i];
        if (strcmp(fault->call, call) != 0)
            continue;
        u64 turn = __atomic_add_fetch(&fault->seen, 1, __ATOMIC_ACQ_REL);
        if (fault->nth && turn != fault->nth)
            continue;
        u64 delay = delay_of(fault, turn, i);
        if (delay)
            state_sleep_until(state_now() + delay);
        if (fault->crash)
            __builtin_trap();
        if (fault->has_result) {
            *result = fault->result;
            answered = true;
        }
    }
    return answered;
}

bool fault_lost(int device)
{
    for (u32 i = 0; sim && i < sim->fault_count; i++) {
        const struct sim_fault *fault = &sim->faults[i];
        if (fault->lost && (int)fault->device == device && state_now() >= sim->born_ns + fault->after_ns)
            return true;
    }
    return false;
}
