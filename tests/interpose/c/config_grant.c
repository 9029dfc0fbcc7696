/* Grant files: what is read, and that anything doubtful closes everything with a reason that names the key. */
#include <string.h>

#include "check.h"
#include "config.h"

#define HEAD "hami-grant=1\n"
#define ONE "device.0.uuid=GPU-a\n"
#define TAIL "region=/usr/local/vgpu/x.cache\n"

static struct config config;

static bool parse(const char *text)
{
    static char copy[32768];
    strcpy(copy, text);
    config = (struct config){0};
    return config_parse_grant(copy, &config);
}

static void refused(const char *text, const char *about)
{
    CHECK(!parse(text));
    CHECK_EQUAL(config.verdict, CONFIG_CLOSED);
    if (!strstr(config.reason, about)) {
        fprintf(stderr, "reason '%s' does not name '%s'\n", config.reason, about);
        exit(1);
    }
}

int main(void)
{
    CHECK(parse(HEAD ONE "device.0.memory_mib=3000\ndevice.0.cores=30\ndevice.0.enforced_by=library\n"
                         "device.1.uuid=MIG-b\ndevice.1.enforced_by=mps\npolicy=force\npriority=0\n"
                         "oversubscribe=true\nlater=whatever\n" TAIL));
    CHECK_EQUAL(config.verdict, CONFIG_LIMITS);
    CHECK(config.granted);
    CHECK(config.oversubscribe);
    CHECK_EQUAL(config.accounting, ACCOUNTING_WITH_OVERHEAD);
    CHECK_EQUAL(config.plan.count, 2);
    CHECK_EQUAL(config.plan.limit[0], 3000LL << 20);
    CHECK_EQUAL(config.plan.cores[0], 30);
    CHECK_EQUAL(config.plan.limit[1], 0);
    CHECK_EQUAL(config.enforcer[1], ENFORCED_BY_MPS);
    CHECK_EQUAL(config.policy, POLICY_FORCE);
    CHECK_EQUAL(config.plan.priority, 0);
    CHECK(strcmp(config.region, "/usr/local/vgpu/x.cache") == 0);
    CHECK(parse(HEAD "accounting=strict\n" TAIL));
    CHECK_EQUAL(config.accounting, ACCOUNTING_STRICT);
    CHECK(!config.oversubscribe);
    CHECK(parse(HEAD TAIL));
    CHECK_EQUAL(config.plan.count, 0);

    refused("", "hami-grant=1");
    refused(HEAD "accounting=some\n" TAIL, "accounting");
    refused("hami-grant=2\n" ONE TAIL, "hami-grant=1");
    refused(HEAD ONE, "region");
    refused(HEAD ONE "region=relative\n", "region");
    refused(HEAD ONE ONE TAIL, "device.0.uuid");
    refused(HEAD ONE "policy=default\npolicy=default\n" TAIL, "policy");
    refused(HEAD ONE "nonsense\n" TAIL, "nonsense");
    refused(HEAD ONE "=x\n" TAIL, "=x");
    refused(HEAD ONE "device.0.memory_mib=-1\n" TAIL, "device.0.memory_mib");
    refused(HEAD ONE "device.0.memory_mib=1e3\n" TAIL, "device.0.memory_mib");
    refused(HEAD ONE "device.0.memory_mib=99999999999999999999\n" TAIL, "device.0.memory_mib");
    refused(HEAD ONE "device.0.cores=30 \n" TAIL, "device.0.cores");
    refused(HEAD ONE "device.0.enforced_by=nobody\n" TAIL, "device.0.enforced_by");
    refused(HEAD ONE "policy=FORCE\n" TAIL, "policy");
    refused(HEAD ONE "priority=low\n" TAIL, "priority");
    refused(HEAD "device.1.uuid=GPU-a\n" TAIL, "device.0");
    refused(HEAD "device.0.cores=30\n" TAIL, "device.0");
    refused(HEAD "device.16.uuid=GPU-a\n" TAIL, "device.16");
    refused(HEAD "device.99999999999.uuid=GPU-a\n" TAIL, "device.99999999999");
    return 0;
}
