/* A stand-in for AMD's libamd_smi.so under the vendor's real binding; no GPU is behind it.
 *
 * GPUs are the lines of the file that $HAMI_AMD_STAND_IN names, `key=value` words of which `name` is the last: serial,
 * units, memory (MiB), numa, card, render, gfx, ue (errors). What a line lacks is refused, a line `gone` refuses all.
 * As in the real library, GPUs are found at initialization; without the file there is no driver.
 *
 * Layouts are those of the binding's ctypes declarations, which the test compares. Every other function that the
 * binding looks up is generated beside this file and answers that it is not supported.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 2, NOT_INITIALIZED = 32, DRIVER_NOT_LOADED = 34, LINE = 512, MOST = 64 };

#pragma pack(push, 1)
struct asic_info {
    char market_name[256];
    uint32_t vendor_id;
    char vendor_name[256];
    uint32_t subvendor_id;
    uint64_t device_id;
    uint32_t rev_id;
    char asic_serial[256];
    uint32_t oam_id, num_of_compute_units;
    uint8_t padding[4];
    uint64_t target_graphics_version;
    uint32_t subsystem_id, reserved[21];
};
struct enumeration_info {
    uint32_t drm_render, drm_card, hsa_id, hip_id;
    char hip_uuid[256];
};
struct error_count {
    uint64_t correctable, uncorrectable, deferred, reserved[5];
};
#pragma pack(pop)

/* What the test compares with the binding's own sizes. */
const unsigned stand_in_sizes[] = {sizeof(struct asic_info), sizeof(struct enumeration_info), sizeof(struct error_count)};

static int found; /* at initialization; 0 = not initialized */
static char numbered[MOST];

/* Line `wanted` of the description, counted from 0; returns the number of lines, 0 without a file. */
static int read_line(int wanted, char out[LINE])
{
    const char *path = getenv("HAMI_AMD_STAND_IN");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[LINE];
    int count = 0;

    if (!file)
        return 0;
    for (; count < MOST && fgets(line, sizeof line, file); count++)
        if (count == wanted) {
            line[strcspn(line, "\n")] = 0;
            strcpy(out, line);
        }
    fclose(file);
    return count;
}

/* The text of one key of a GPU; NULL where its line lacks it. Overwritten by the next call. */
static const char *text_of(const void *handle, const char *key)
{
    static char line[LINE + 1];
    char pattern[32], *value;

    snprintf(pattern, sizeof pattern, " %s=", key);
    line[0] = ' ';
    line[1] = 0;
    read_line((int)((const char *)handle - numbered), line + 1);
    value = strstr(line, pattern);
    if (!value)
        return NULL;
    value += strlen(pattern);
    if (strcmp(key, "name"))
        value[strcspn(value, " ")] = 0;
    return value;
}

static int number_of(const void *handle, const char *key, int base, uint64_t *out)
{
    const char *text = text_of(handle, key);

    if (text)
        *out = strtoull(text, NULL, base);
    return text != NULL;
}

unsigned amdsmi_init(uint64_t flags)
{
    char line[LINE];

    (void)flags;
    found = read_line(-1, line);
    return found ? SUCCESS : DRIVER_NOT_LOADED;
}

unsigned amdsmi_shut_down(void)
{
    found = 0;
    return SUCCESS;
}

/* Each GPU has a socket of its own, whose handle is the GPU's. */
unsigned amdsmi_get_socket_handles(uint32_t *count, void **handles)
{
    if (!found)
        return NOT_INITIALIZED;
    for (int i = 0; handles && i < found; i++)
        handles[i] = &numbered[i];
    *count = (uint32_t)found;
    return SUCCESS;
}

unsigned amdsmi_get_processor_handles(void *socket, uint32_t *count, void **handles)
{
    if (handles)
        handles[0] = socket;
    *count = 1;
    return SUCCESS;
}

unsigned amdsmi_get_gpu_asic_info(void *handle, struct asic_info *info)
{
    const char *text;
    uint64_t number;

    memset(info, 0, sizeof *info);
    if (!text_of(handle, "name"))
        return NOT_SUPPORTED;
    strncpy(info->market_name, text_of(handle, "name"), sizeof info->market_name - 1);
    if ((text = text_of(handle, "serial")))
        strncpy(info->asic_serial, text, sizeof info->asic_serial - 1);
    info->num_of_compute_units = number_of(handle, "units", 10, &number) ? (uint32_t)number : UINT32_MAX;
    info->target_graphics_version = number_of(handle, "gfx", 16, &number) ? number : 0;
    return SUCCESS;
}

unsigned amdsmi_get_gpu_memory_total(void *handle, unsigned kind, uint64_t *bytes)
{
    if (kind != 0 || !number_of(handle, "memory", 10, bytes))
        return NOT_SUPPORTED;
    *bytes <<= 20;
    return SUCCESS;
}

unsigned amdsmi_topo_get_numa_node_number(void *handle, uint32_t *node)
{
    uint64_t number;

    if (!number_of(handle, "numa", 10, &number))
        return NOT_SUPPORTED;
    *node = (uint32_t)number;
    return SUCCESS;
}

unsigned amdsmi_get_gpu_total_ecc_count(void *handle, struct error_count *errors)
{
    memset(errors, 0, sizeof *errors);
    return number_of(handle, "ue", 10, &errors->uncorrectable) ? SUCCESS : NOT_SUPPORTED;
}

unsigned amdsmi_get_gpu_enumeration_info(void *handle, struct enumeration_info *info)
{
    uint64_t card, render;

    memset(info, 0, sizeof *info);
    if (!number_of(handle, "card", 10, &card) || !number_of(handle, "render", 10, &render))
        return NOT_SUPPORTED;
    info->drm_card = (uint32_t)card;
    info->drm_render = (uint32_t)render;
    return SUCCESS;
}

/* Bus addresses count through the GPUs: 0000:01:00.0, 0000:02:00.0, ... */
unsigned amdsmi_get_gpu_device_bdf(void *handle, uint64_t *address)
{
    *address = (uint64_t)((const char *)handle - numbered + 1) << 8;
    return SUCCESS;
}

unsigned amdsmi_status_code_to_string(unsigned status, const char **text)
{
    (void)status;
    *text = "stand-in";
    return SUCCESS;
}
