/* Bodies for the rows of hooks.def, so that the tables can be linked without the library. */
#define HOOK(library, symbol, name, version, stream, concern)                                                          \
    int symbol(void);                                                                                                  \
    int symbol(void)                                                                                                   \
    {                                                                                                                  \
        return 0;                                                                                                      \
    }
#include "hooks.def"
