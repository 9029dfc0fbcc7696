/*
 * The arithmetic of device time. All static functions and those so marked in timeline.h are called with the lock held;
 * times are those of state_now(). Invariants: done <= pushed; obtained_ns <= submitted_ns; kernels complete in the
 * order of their numbers; members lists exactly the claimed queues of its device; the obtained times of a device's
 * queues never sum to more than the time that passed.
 */
#include "timeline.h"

#include <stdlib.h>
#include <string.h>

#include "mig.h"
#include "mps.h"

#define HORIZON_NS 100000000u /* longest sleep before looking again: a neighbour may have died meanwhile */
#define CHECK_NS 10000000u    /* how often neighbours with pending work are checked for life */

static struct sim_queue *own_queue(int device)
{
    int slot = state_attach();
    u32 index = slot < 0 ? 0 : sim->processes[slot].queue[device];
    return index ? &sim->queues[index - 1] : NULL;
}

static u64 pending(const struct sim_queue *queue) { return queue->submitted_ns - queue->obtained_ns; }

static u64 least(u64 a, u64 b) { return a < b ? a : b; }

/* a * b / c, rounded down, where a * b may not fit. */
static u64 scale(u64 a, u64 b, u64 c) { return (u64)((unsigned __int128)a * b / c); }

/* The same, rounded up. */
static u64 scale_up(u64 a, u64 b, u64 c) { return (u64)(((unsigned __int128)a * b + c - 1) / c); }

/* Add `work` ns, spread evenly over [from, from + span), to a history of busy time. */
static void bins_add(u64 *bins, u64 *newest, u64 from, u64 span, u64 work)
{
    u64 whole = span;
    while (span) {
        u64 bin = from / SIM_BIN_NS;
        u64 piece = (bin + 1) * SIM_BIN_NS - from;
        if (piece > span)
            piece = span;
        if (bin > *newest) {
            u64 first = bin - *newest >= SIM_BINS ? bin - SIM_BINS + 1 : *newest + 1;
            for (u64 b = first; b <= bin; b++)
                bins[b % SIM_BINS] = 0;
            *newest = bin;
        }
        bins[bin % SIM_BINS] += scale(piece, work, whole);
        from += piece;
        span -= piece;
    }
}

static unsigned bins_percent(const u64 *bins, u64 newest, u64 since, u64 now)
{
    u64 last = now / SIM_BIN_NS, first = since / SIM_BIN_NS, busy = 0;
    if (first + SIM_BINS <= last)
        first = last - SIM_BINS + 1;
    for (u64 b = first; b <= last; b++)
        if (b <= newest && b + SIM_BINS > newest)
            busy += bins[b % SIM_BINS];
    u64 window = now - first * SIM_BIN_NS;
    u64 percent = window ? (busy * 100 + window / 2) / window : 0;
    return percent > 100 ? 100 : (unsigned)percent;
}

/* How fast a queue runs: `work` ns of it in `time` ns. */
struct pace {
    u64 work, time;
};
static const struct pace full_pace = {1, 1};

/* `queue` runs from `from` on for `span` ns, in which it obtains `work` ns. */
static void run(struct sim_queue *queue, u64 from, u64 span, u64 work, struct pace pace)
{
    u64 reached = queue->obtained_ns + work, done = queue->done;
    while (done < queue->pushed && queue->end_ns[(done + 1) % SIM_DEPTH] <= reached) {
        done++;
        u64 ahead = queue->end_ns[done % SIM_DEPTH] - queue->obtained_ns;
        queue->done_at[done % SIM_DEPTH] = from + scale_up(ahead, pace.time, pace.work);
    }
    queue->obtained_ns = reached;
    bins_add(queue->bins, &queue->bin, from, span, work);
    __atomic_store_n(&queue->done, done, __ATOMIC_RELEASE);
}

static u32 pending_members(const struct sim_timeline *line)
{
    u32 count = 0;
    for (u32 i = 0; i < line->member_count; i++)
        count += pending(&sim->queues[line->members[i]]) > 0;
    return count;
}

/* Give the turn to the next member with pending work, the current one last. False when none has any. */
static bool next_turn(struct sim_timeline *line, u64 slice)
{
    for (u32 step = 1; step <= line->member_count; step++) {
        u32 at = (line->current + step) % line->member_count;
        if (pending(&sim->queues[line->members[at]])) {
            line->current = at;
            line->turn_left_ns = slice;
            return true;
        }
    }
    return false;
}

/* On an idle device the first to submit runs at once. */
static void begin_turn(const struct sim_queue *queue)
{
    struct sim_timeline *line = &sim->timelines[queue->device];
    while (&sim->queues[line->members[line->current]] != queue)
        line->current = (line->current + 1) % line->member_count;
    line->turn_left_ns = sim->devices[queue->device].time_slice_ns;
}

static void settle_turns(struct sim_timeline *line, u64 now, u64 slice)
{
    while (line->clock_ns < now) {
        struct sim_queue *queue = line->member_count ? &sim->queues[line->members[line->current]] : NULL;
        if (!queue || !pending(queue) || !line->turn_left_ns) {
            if (!queue || !next_turn(line, slice)) {
                line->clock_ns = now;
                return;
            }
            continue;
        }
        u64 span = least(least(line->turn_left_ns, pending(queue)), now - line->clock_ns);
        run(queue, line->clock_ns, span, span, full_pace);
        bins_add(line->bins, &line->bin, line->clock_ns, span, span);
        line->busy_ns += span;
        line->turn_left_ns -= span;
        line->clock_ns += span;
    }
}

/* ---- side by side */

#define LEAST_STEP_NS 1000u /* rates leave fractions of a ns; steps as long as this lose next to nothing by them */

static u64 cap_of(const struct sim_queue *queue) { return sim->processes[queue->owner - 1].sm_ppm; }

/* The pace of each member that has work `left`: an equal part, at most its cap; what capped ones leave is for the rest.
 */
static void share_out(const struct sim_timeline *line, const u64 *left, struct pace *pace)
{
    u64 room = MPS_ALL_PPM, open = 0;
    for (u32 i = 0; i < line->member_count; i++) {
        pace[i] = (struct pace){0, 1};
        open += left[i] > 0;
    }
    for (bool again = true; again && open;) {
        u64 level = room / open;
        again = false;
        for (u32 i = 0; i < line->member_count; i++) {
            u64 cap = cap_of(&sim->queues[line->members[i]]);
            if (!left[i] || pace[i].work || cap >= MPS_ALL_PPM || cap > level)
                continue;
            pace[i] = (struct pace){cap, MPS_ALL_PPM};
            room -= cap;
            open--;
            again = true;
        }
    }
    for (u32 i = 0; i < line->member_count; i++)
        if (left[i] && !pace[i].work)
            pace[i] = (struct pace){room, MPS_ALL_PPM * open};
}

/* How long until the first member has done what it has left; `most` if none does within that. */
static u64 first_end(const struct sim_timeline *line, const u64 *left, const struct pace *pace, u64 most)
{
    for (u32 i = 0; i < line->member_count; i++)
        if (left[i])
            most = least(most, scale_up(left[i], pace[i].time, pace[i].work));
    return most;
}

static void settle_side_by_side(struct sim_timeline *line, u64 now)
{
    u64 left[SIM_QUEUES];
    struct pace pace[SIM_QUEUES];
    while (line->clock_ns < now) {
        if (!pending_members(line)) {
            line->clock_ns = now;
            return;
        }
        for (u32 i = 0; i < line->member_count; i++)
            left[i] = pending(&sim->queues[line->members[i]]);
        share_out(line, left, pace);
        u64 ahead = now - line->clock_ns, span = first_end(line, left, pace, ahead);
        if (span == ahead && span < LEAST_STEP_NS)
            return; /* the rest is decided later */
        for (u32 i = 0; i < line->member_count; i++)
            if (left[i])
                run(&sim->queues[line->members[i]], line->clock_ns, span,
                    least(left[i], scale(span, pace[i].work, pace[i].time)), pace[i]);
        bins_add(line->bins, &line->bin, line->clock_ns, span, span);
        line->busy_ns += span;
        line->clock_ns += span;
    }
}

u32 timeline_sm_count(int device)
{
    const struct sim_device *described = &sim->devices[device];
    int slot = described->side_by_side ? state_attach() : -1;
    u64 ppm = slot < 0 ? MPS_ALL_PPM : sim->processes[slot].sm_ppm;
    u32 count = (u32)scale(described->sm_count, ppm, MPS_ALL_PPM);
    if (ppm == MPS_ALL_PPM || count < 2)
        return count > 0 ? count : 1;
    return count & ~1u; /* they are given in pairs */
}

void timeline_settle(int device)
{
    struct sim_timeline *line = &sim->timelines[device];
    u64 now = state_now();
    if (sim->devices[device].side_by_side)
        settle_side_by_side(line, now);
    else
        settle_turns(line, now, sim->devices[device].time_slice_ns);
}

/* Play the turns until `position` has obtained `need` ns more; `left` is what each member still has. */
static u64 play_turns(const struct sim_timeline *line, u64 *left, u32 position, u64 need, u64 slice)
{
    u64 clock = line->clock_ns, end = clock + HORIZON_NS;
    u32 at = line->current;
    for (u64 turn = line->turn_left_ns; clock < end; at = (at + 1) % line->member_count, turn = slice) {
        u64 span = least(turn, left[at]);
        if (at == position) {
            if (need <= span)
                return clock + need;
            need -= span;
        }
        left[at] -= span;
        clock += span;
    }
    return end;
}

/* The same where all members run at once. */
static u64 play_side_by_side(const struct sim_timeline *line, u64 *left, u32 position, u64 need)
{
    struct pace pace[SIM_QUEUES];
    u64 clock = line->clock_ns, end = clock + HORIZON_NS;
    while (clock < end) {
        share_out(line, left, pace);
        u64 last = scale_up(need, pace[position].time, pace[position].work);
        u64 step = first_end(line, left, pace, last);
        if (step == last)
            return clock + step;
        for (u32 i = 0; i < line->member_count; i++) {
            u64 had = left[i] ? least(left[i], scale(step, pace[i].work, pace[i].time)) : 0;
            left[i] -= had;
            need -= i == position ? had : 0;
        }
        clock += step;
    }
    return end;
}

/* When `wanted`, a member with pending work, will have obtained `goal` ns if nobody submits more; HORIZON_NS ahead,
 * give or take a turn, when it takes longer. After timeline_settle(). */
static u64 foresee(int device, const struct sim_queue *wanted, u64 goal)
{
    const struct sim_timeline *line = &sim->timelines[device];
    u64 need = goal - wanted->obtained_ns, left[SIM_QUEUES];
    u32 position = 0;
    for (u32 i = 0; i < line->member_count; i++) {
        left[i] = pending(&sim->queues[line->members[i]]);
        if (&sim->queues[line->members[i]] == wanted)
            position = i;
    }
    return sim->devices[device].side_by_side
               ? play_side_by_side(line, left, position, need)
               : play_turns(line, left, position, need, sim->devices[device].time_slice_ns);
}

/* Drop neighbours on `device` that died with work pending; they would hold up everyone. After timeline_settle(). */
static void check_neighbours(int device)
{
    struct sim_timeline *line = &sim->timelines[device];
    u64 now = line->clock_ns;
    if (now - line->checked_ns < CHECK_NS)
        return;
    line->checked_ns = now;
    for (u32 i = 0; i < line->member_count; i++) {
        struct sim_queue *queue = &sim->queues[line->members[i]];
        int slot = (int)queue->owner - 1;
        if (pending(queue) && !state_alive(slot)) {
            sim->processes[slot].queue[device] = 0;
            timeline_remove(line->members[i]);
            i--;
        }
    }
}

static struct sim_queue *claim(int device, int slot)
{
    struct sim_timeline *line = &sim->timelines[device];
    for (u32 i = 0; i < SIM_QUEUES; i++) {
        struct sim_queue *queue = &sim->queues[i];
        if (queue->owner)
            continue;
        queue->device = (u32)device;
        queue->owner = (u32)slot + 1;
        line->members[line->member_count++] = i;
        sim->processes[slot].queue[device] = i + 1;
        return queue;
    }
    return NULL;
}

u64 timeline_submit(int device, u64 work_ns, u64 *wait_for)
{
    int slot = state_attach();
    u64 number = 0;
    work_ns = unit_work(device, work_ns);
    *wait_for = 0;
    if (slot < 0)
        return 0;
    state_lock();
    struct sim_queue *queue = own_queue(device);
    if (!queue)
        queue = claim(device, slot);
    if (queue) {
        timeline_settle(device);
        if (queue->pushed - queue->done >= SIM_DEPTH) {
            *wait_for = queue->done + 1;
        } else {
            bool idle = !pending(queue);
            if (!pending_members(&sim->timelines[device]))
                begin_turn(queue);
            number = queue->pushed + 1;
            queue->end_ns[number % SIM_DEPTH] = queue->submitted_ns + work_ns;
            queue->submitted_ns += work_ns;
            queue->pushed = number;
            if (idle && !work_ns) {
                queue->done_at[number % SIM_DEPTH] = sim->timelines[device].clock_ns;
                __atomic_store_n(&queue->done, number, __ATOMIC_RELEASE);
            }
        }
    }
    state_unlock();
    return number;
}

u64 timeline_last(int device)
{
    struct sim_queue *queue = own_queue(device);
    return queue ? __atomic_load_n(&queue->pushed, __ATOMIC_ACQUIRE) : 0;
}

bool timeline_done(int device, u64 number, u64 *when)
{
    struct sim_queue *queue = own_queue(device);
    if (!number || !queue) {
        if (when)
            *when = 0;
        return true;
    }
    if (__atomic_load_n(&queue->done, __ATOMIC_ACQUIRE) < number) {
        state_lock();
        timeline_settle(device);
        state_unlock();
        if (__atomic_load_n(&queue->done, __ATOMIC_ACQUIRE) < number)
            return false;
    }
    if (when)
        *when = queue->pushed - number < SIM_DEPTH ? queue->done_at[number % SIM_DEPTH] : 0;
    return true;
}

void timeline_wait(int device, u64 number)
{
    struct sim_queue *queue = own_queue(device);
    while (queue && number) {
        state_lock();
        timeline_settle(device);
        if (queue->done >= number) {
            state_unlock();
            return;
        }
        check_neighbours(device);
        u64 until = foresee(device, queue, queue->end_ns[number % SIM_DEPTH]);
        state_unlock();
        state_sleep_until(until);
    }
}

unsigned timeline_busy_percent(int device)
{
    state_lock();
    timeline_settle(device);
    const struct sim_timeline *line = &sim->timelines[device];
    u64 now = line->clock_ns;
    unsigned percent = bins_percent(line->bins, line->bin, now > 1000000000u ? now - 1000000000u : 0, now);
    state_unlock();
    return percent;
}

unsigned timeline_share_percent(int index, u64 since_ns)
{
    const struct sim_queue *queue = &sim->queues[index];
    return bins_percent(queue->bins, queue->bin, since_ns, sim->timelines[queue->device].clock_ns);
}

void timeline_clear(int device)
{
    struct sim_timeline *line = &sim->timelines[device];
    while (line->member_count) {
        u32 index = line->members[0];
        sim->processes[sim->queues[index].owner - 1].queue[device] = 0;
        timeline_remove(index);
    }
    memset(line, 0, sizeof *line);
}

void timeline_remove(u32 index)
{
    struct sim_timeline *line = &sim->timelines[sim->queues[index].device];
    for (u32 i = 0; i < line->member_count; i++) {
        if (line->members[i] != index)
            continue;
        memmove(&line->members[i], &line->members[i + 1], (line->member_count - i - 1) * sizeof line->members[0]);
        line->member_count--;
        if (line->current > i)
            line->current--;
        else if (line->current == i)
            line->turn_left_ns = 0; /* whose turn it was is gone: the one now in its place waits for next_turn */
        if (line->current >= line->member_count)
            line->current = 0;
        break;
    }
    memset(&sim->queues[index], 0, sizeof sim->queues[index]);
}

void timeline_repair(void)
{
    for (u32 d = 0; d < SIM_UNITS; d++) {
        sim->timelines[d].member_count = 0;
        sim->timelines[d].current = 0;
        sim->timelines[d].turn_left_ns = 0;
    }
    for (u64 p = 0; p < sim->process_high; p++)
        memset(sim->processes[p].queue, 0, sizeof sim->processes[p].queue);
    for (u32 i = 0; i < SIM_QUEUES; i++) {
        struct sim_queue *queue = &sim->queues[i];
        if (!queue->owner)
            continue;
        struct sim_process *owner = &sim->processes[queue->owner - 1];
        if (!owner->live) {
            memset(queue, 0, sizeof *queue);
            continue;
        }
        struct sim_timeline *line = &sim->timelines[queue->device];
        line->members[line->member_count++] = i;
        owner->queue[queue->device] = i + 1;
        if (queue->obtained_ns > queue->submitted_ns)
            queue->obtained_ns = queue->submitted_ns;
    }
}
