/* What this container may use: from the grant file, an existing region, or the environment of HAMi's contract.
 *
 * Order of authority: the grant directory if it exists (its file missing, unreadable or invalid: everything is refused);
 * else the file that HAMI_GRANT names (the same rule); else the environment, where a region that exists already
 * outranks the variables. Nothing of all this: nothing is limited and nothing is counted.
 */
#ifndef HAMI_CONFIG_H
#define HAMI_CONFIG_H

#include <stdbool.h>

#include "region.h"

#ifndef HAMI_GRANT_DIRECTORY
#define HAMI_GRANT_DIRECTORY "/etc/hami"
#endif

enum config_verdict {
    CONFIG_ABSENT, /* no limits, no accounting */
    CONFIG_LIMITS,
    CONFIG_CLOSED, /* a grant that cannot be read: nothing is allowed */
};

enum config_policy {
    POLICY_DEFAULT, /* compute limits hold while the device is shared */
    POLICY_FORCE,   /* always */
    POLICY_DISABLE, /* never */
};

enum config_enforcer {
    ENFORCED_BY_LIBRARY,
    ENFORCED_BY_DRIVER, /* the memory cap is the driver's; we show the view */
    ENFORCED_BY_MPS,    /* the compute cap is the MPS server's; of memory it caps single processes, the rest is ours */
};

/* What becomes of contexts and loaded code. */
enum config_accounting {
    ACCOUNTING_WITH_OVERHEAD, /* shown as used; not a reason to refuse anything */
    ACCOUNTING_REQUESTED,     /* not shown */
    ACCOUNTING_STRICT,        /* shown, and part of the limit */
};

struct config {
    enum config_verdict verdict;
    enum config_policy policy;
    struct region_plan plan;
    enum config_enforcer enforcer[REGION_DEVICES];
    enum config_accounting accounting;
    bool oversubscribe; /* memory may stand in the host's when the device is full */
    bool limits_named; /* the environment says what the limits are, be it none */
    bool granted; /* from a grant file: its limits outrank what the region says */
    char region[4096];
    char reason[256]; /* of CONFIG_CLOSED */
};

/* Where to look. Null members are not looked at. */
struct config_sources {
    const char *grant_directory;
    const char *override_file;     /* variables changed afterwards (override.h); never looser limits */
    const char *library_directory; /* where this library lies: regions are mounted beside it */
};

void config_read(const struct config_sources *sources, struct config *config);
/* Text of a grant file into `config`; false with a reason if it is invalid. */
bool config_parse_grant(char *text, struct config *config);
/* "3000m", "2g", "0x1000": bytes. Anything else, and what does not fit 64 bit: 0, which is no limit. */
uint64_t config_bytes(const char *text);

#endif
