/*
 * What a process gets as a client of MPS, on devices whose work runs side by side. Its environment says it, once, when it
 * attaches: which daemon, how many of the multiprocessors, how much memory of each device.
 */
#ifndef SIM_MPS_H
#define SIM_MPS_H

#include "state.h"

/* All multiprocessors, in parts per million. */
#define MPS_ALL_PPM 1000000u

/* Of one process. */
struct mps_terms {
    bool client;           /* it finds a daemon */
    u64 sm_ppm;            /* most of the multiprocessors it may use, MPS_ALL_PPM = all */
    u64 pinned[SIM_UNITS]; /* most bytes it may hold, by unit; 0 = no limit */
};

/* The calling process's, by its environment. One that finds no daemon runs without MPS and without its limits, and is not
 * told. */
void mps_find(struct mps_terms *terms);

/* Whether a process's work on a unit goes through MPS. With the lock held. */
bool mps_holds(const struct sim_process *process, int unit);

/* Bytes that a process may still take of a unit as far as MPS goes, UINT64_MAX = no limit. Managed memory is not pinned
 * and not limited. With the lock held. */
u64 mps_room(const struct sim_process *process, int unit, enum sim_kind kind);

/* The same, of the calling process's memory that is not managed. Takes the lock. */
u64 mps_room_left(int unit);

/* Whether the calling process's work on a unit goes through MPS. */
bool mps_in_use(int unit);

#endif
