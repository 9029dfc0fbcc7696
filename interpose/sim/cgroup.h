/*
 * Memory limits by cgroup, as drivers from release 615 hold them. The tree is the machine's own (a mount of the kernel's
 * cgroup v2), or a directory tree that plays one: its groups are directories, and a group's processes are those whose
 * pids stand in its `cgroup.procs` and, as in the kernel, their children that stand in no other.
 */
#ifndef SIM_CGROUP_H
#define SIM_CGROUP_H

#include "state.h"

#define CGROUP_NO_LIMIT UINT64_MAX

/* True when the described driver can cap what a cgroup takes. */
bool cgroup_supported(void);

/* The calling process's groups, the innermost first: SIM_CGROUP_DEPTH entries, zeros after the last. */
void cgroup_find(u64 *groups);

/* Inode of the group at `path`, 0 when that is no directory. */
u64 cgroup_inode(const char *path);

/* The row of a group's limits, NULL = it has none. With the lock held. */
struct sim_cgroup *cgroup_row(u64 inode);

/* A row for a group that is getting limits; rows of groups that are gone are dropped first. NULL = the table is full.
 * With the lock held. */
struct sim_cgroup *cgroup_claim(u64 inode, const char *path);

/* Bytes of a device that a group's processes hold. Managed memory is the host's to account. With the lock held. */
u64 cgroup_used(u64 inode, int device);

/* Bytes that a process in `groups` may still take; CGROUP_NO_LIMIT where nothing caps it. With the lock held. */
u64 cgroup_room(const u64 *groups, int device, enum sim_kind kind);

/* What a process under a limit of its own innermost group is shown instead of the device. False: it has no such limit.
 * Takes the lock. */
bool cgroup_view(int device, u64 *total, u64 *used);

#endif
