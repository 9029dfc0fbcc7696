/*
 * Device time, of units (a device, or a MIG instance). A process has one queue a device; a kernel of n ns is an entry
 * that completes when its queue has obtained n ns more. Between processes with pending work the device goes round in turns of time_slice_ns, or, side by
 * side, gives each an equal part continuously, at most the part of the multiprocessors that the process may use; what
 * one leaves goes to the others. Nothing runs: what happened until now is computed whenever somebody asks.
 */
#ifndef SIM_TIMELINE_H
#define SIM_TIMELINE_H

#include "state.h"

/* Multiprocessors of `device` as this process sees them. */
u32 timeline_sm_count(int device);

/* Add `work_ns` to this process's queue on `device`. Returns the kernel's number, counted from 1. 0: nothing was added;
 * either SIM_DEPTH kernels are outstanding, and *wait_for is the oldest of them, or no queue is left and it is 0. */
u64 timeline_submit(int device, u64 work_ns, u64 *wait_for);

/* Number of the last kernel submitted to `device` by this process; 0 = none. */
u64 timeline_last(int device);

/* True when kernel `number` of this process has completed. *when (may be NULL) gets the clock at which it did, or 0
 * when that is no longer known (SIM_DEPTH newer kernels were submitted since). */
bool timeline_done(int device, u64 number, u64 *when);

/* Sleep until kernel `number` of this process has completed. */
void timeline_wait(int device, u64 number);

/* Percent of the last second in which `device` was busy. Takes the lock. */
unsigned timeline_busy_percent(int device);

/* Percent of the time from `since_ns` (at most the history's length ago) to now in which queue `queue` ran.
 * With the lock held, after timeline_settle(). */
unsigned timeline_share_percent(int queue, u64 since_ns);

/* Decide everything up to now on `device`. With the lock held. */
void timeline_settle(int device);

/* Take queue `queue` away: its process is gone. With the lock held. */
void timeline_remove(u32 queue);

/* Forget all that ran on a unit, whose memory nobody uses any more. With the lock held. */
void timeline_clear(int device);

/* Make sums and lists again after a holder of the lock died. With the lock held. */
void timeline_repair(void);

#endif
