/* Loads a plug-in in one of the ways programs do, uses it, and says what it answered.
 *
 *     host PLUGIN TIMES FLAG...     FLAG: lazy, now, deep, local, global, namespace (dlmopen)
 *
 * With TIMES above 1 the plug-in is unloaded and loaded again in between.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int flag_of(const char *word)
{
    static const struct {
        const char *word;
        int flag;
    } known[] = {{"lazy", RTLD_LAZY},   {"now", RTLD_NOW},       {"deep", RTLD_DEEPBIND},
                 {"local", RTLD_LOCAL}, {"global", RTLD_GLOBAL}, {"namespace", 0}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].word, word) == 0)
            return known[i].flag;
    fprintf(stderr, "unknown flag %s\n", word);
    exit(2);
}

int main(int count, char **words)
{
    int flags = 0, apart = 0;
    for (int i = 3; i < count; i++) {
        flags |= flag_of(words[i]);
        apart |= strcmp(words[i], "namespace") == 0;
    }
    for (int turn = 0; turn < atoi(words[2]); turn++) {
        void *plugin = apart ? dlmopen(LM_ID_NEWLM, words[1], flags) : dlopen(words[1], flags);
        int (*probe)(int, int, long[4]) = plugin ? (int (*)(int, int, long[4]))dlsym(plugin, "plugin_probe") : NULL;
        long out[4] = {0};
        if (!probe || probe(100, 700, out)) {
            const char *why = dlerror();
            fprintf(stderr, "failed: %s\n", why ? why : "the driver");
            return 1;
        }
        printf("[%ld, %ld, %ld, %ld]\n", out[0], out[1], out[2], out[3]);
        dlclose(plugin);
    }
    return 0;
}
