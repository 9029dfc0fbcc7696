#include "override.h"

#include <string.h>

#include "prim.h"

void overrides_read(const char *path, struct overrides *overrides)
{
    overrides->text[0] = overrides->text[1] = 0;
    ssize_t length = path ? prim_read_file(path, overrides->text, sizeof overrides->text - 1) : -1;
    if (length < 0) {
        overrides->text[0] = overrides->text[1] = 0;
        return;
    }
    char *to = overrides->text;
    for (const char *from = overrides->text; *from; from++)
        if (*from != '\n')
            *to++ = *from;
        else if (to != overrides->text && to[-1] != 0)
            *to++ = 0; /* blank lines vanish: an empty one would end them all */
    to[0] = to[1] = 0;
}

const char *overrides_get(const struct overrides *overrides, const char *name)
{
    size_t length = strlen(name);
    const char *found = NULL;
    for (const char *line = overrides->text; *line; line += strlen(line) + 1)
        if (strncmp(line, name, length) == 0 && line[length] == '=')
            found = line + length + 1;
    return found;
}
