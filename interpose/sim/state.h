/*
 * The machine's state as C sees it, and what both simulated libraries do with it: map it, lock it, attach a process,
 * drop the dead, account memory. Device time is in timeline.h.
 */
#ifndef SIM_STATE_H
#define SIM_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_API __attribute__((visibility("default")))

typedef uint64_t u64;
typedef int64_t i64;
typedef uint32_t u32;
typedef int32_t i32;
typedef char text;

#define SIM_CONST(name, value, doc) enum { name = value };
#define SIM_RECORD(name) struct name {
#define SIM_ONE(type, field, doc) SIM_TYPE_##type field;
#define SIM_MANY(type, field, count, doc) SIM_TYPE_##type field[count];
#define SIM_END(name) };
#define SIM_TYPE_u64 u64
#define SIM_TYPE_i64 i64
#define SIM_TYPE_u32 u32
#define SIM_TYPE_i32 i32
#define SIM_TYPE_text text
#define SIM_TYPE_sim_device struct sim_device
#define SIM_TYPE_sim_profile struct sim_profile
#define SIM_TYPE_sim_instance struct sim_instance
#define SIM_TYPE_sim_fault struct sim_fault
#define SIM_TYPE_sim_process struct sim_process
#define SIM_TYPE_sim_queue struct sim_queue
#define SIM_TYPE_sim_timeline struct sim_timeline
#define SIM_TYPE_sim_cgroup struct sim_cgroup
#include "state.def"
#undef SIM_CONST
#undef SIM_RECORD
#undef SIM_ONE
#undef SIM_MANY
#undef SIM_END

/* What a byte of device memory is held for. */
enum sim_kind { KIND_LINEAR, KIND_MANAGED, KIND_POOL, KIND_VMM, KIND_ARRAY, KIND_CONTEXT, KIND_MODULE, KIND_GRAPH };

extern struct sim_state *sim; /* NULL until state_map() succeeded */

/* Map the file named by HAMI_SIM_STATE, once. False: there is none, or it is not a state of this version; the caller
 * answers as a driver without hardware. Thread-safe. */
bool state_map(void);

/* The machine's lock. After state_lock() the state is consistent, even if its last holder died inside. */
void state_lock(void);
void state_unlock(void);

/* This process's slot, claimed at the first call in this process (and again in a forked child). -1: table full. */
int state_attach(void);

/* Calls `child` in every later fork's child. Once it is `known` this does nothing. Called before a lock of this process is
 * first taken, which a fork meanwhile would leave held; threads that come first together may each have it called. */
void state_after_fork(bool *known, void (*child)(void));

/* A number that a forked child sees changed: what its parent made is not its own. */
unsigned state_generation(void);

/* Give back what dead processes held. Takes the lock. */
void state_reap(void);

/* True while the process of `slot` lives. With the lock held. */
bool state_alive(int slot);

/* Pid of `slot` in this process's pid namespace; 0 when it is not visible from here. */
int state_pid(int slot);

/* Account `bytes` of a unit to this process; false when the unit, or a cgroup of the process under its limit, has not that
 * much left (dead processes were dropped before saying so), or the unit does not exist any more. Takes the lock. */
bool ledger_take(int device, enum sim_kind kind, u64 bytes);
/* The same, but as much of it as there is; returns how much. */
u64 ledger_take_some(int device, enum sim_kind kind, u64 bytes);
void ledger_give(int device, enum sim_kind kind, u64 bytes);

/* Bytes of a unit in use by live processes. Takes the lock. */
u64 ledger_used(int device);

/* True while a process lives that uses a unit. The dead are dropped first. With the lock held. */
bool ledger_busy(int unit);

/* Nanoseconds on the machine's clock: CLOCK_MONOTONIC, or the one a test moves. */
u64 state_now(void);

/* Wait until `when` on the machine's clock. A clock that a test moves is moved instead. */
void state_sleep_until(u64 when);

/* Act out the faults described for `call`. True: answer *result instead of working. */
bool fault_hits(const char *call, int *result);

/* True when look-ups shall not find `call`. */
bool fault_absent(const char *call);

/* True once `device` has fallen off the bus: whatever needs it answers with an error from then on. */
bool fault_lost(int device);

#endif
