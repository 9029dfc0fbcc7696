/* The file with which HAMi's users change a container's variables afterwards: lines KEY=VALUE. HAMi puts all of them into the
 * program's environment; here only what this library asks for is looked up in it, and the program's environment stays. */
#ifndef HAMI_OVERRIDE_H
#define HAMI_OVERRIDE_H

#define OVERRIDE_FILE "/overrideEnv"

enum { OVERRIDE_ROOM = 4096 };

struct overrides {
    char text[OVERRIDE_ROOM]; /* lines, each ended by NUL; an empty one ends them */
};

/* A file that is missing, unreadable or too long holds nothing. Null: no file is looked at. */
void overrides_read(const char *path, struct overrides *overrides);
/* The value of a variable; null if the file does not name it. The last line wins. */
const char *overrides_get(const struct overrides *overrides, const char *name);

#endif
