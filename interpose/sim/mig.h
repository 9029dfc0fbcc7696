/*
 * Units: devices, and instances of devices in MIG mode. Every function here may be called without the machine's lock
 * unless it says otherwise; what it answers may be old by then.
 */
#ifndef SIM_MIG_H
#define SIM_MIG_H

#include "state.h"

/* The device of a unit: itself, or whose instance it is. */
int unit_device(int unit);

/* True for an instance's number, existing or not. */
bool unit_is_instance(int unit);

/* True for a device and for an instance that programs can run on; -1 is none. */
bool unit_exists(int unit);

/* Work of the whole device as work of a unit: an instance has fewer multiprocessors and takes longer. */
u64 unit_work(int unit, u64 work_ns);

/* A number that differs between an instance and a later one in its place; 0 for devices. */
u64 unit_made(int unit);

/* The device's instances that programs can run on, in the order of their ids; at most SIM_INSTANCES. */
int unit_instances(int device, int *units);

/* The device is in MIG mode: programs run on its instances only. */
bool mig_on(int device);

/* The profile of an instance. */
const struct sim_profile *mig_profile(const struct sim_instance *instance);

/* How many instances of a profile can be made now; `at` (may be NULL) gets a free start, SIM_INSTANCES when there is
 * none. With the lock held. */
unsigned mig_room(int device, u32 profile, u32 *at);

/* True when an instance of the profile may be made at `start` now. With the lock held. */
bool mig_fits(int device, u32 profile, u32 start);

/* Make a GPU instance; its number, or -1 without a free row. With the lock held, after mig_fits(). */
int mig_make(int device, u32 profile, u32 start);

#endif
