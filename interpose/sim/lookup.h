/* One row a linker symbol of libcuda, generated from cuda_symbols.txt, sorted by name. */
#ifndef SIM_LOOKUP_H
#define SIM_LOOKUP_H

enum symbol_family { FAMILY_legacy, FAMILY_ptsz, FAMILY_ptds };

struct symbol {
    const char *symbol, *name;
    int version; /* CUDA version of this calling convention */
    enum symbol_family family;
    void *function;
};

extern const struct symbol cuda_symbols[];
extern const int cuda_symbol_count;

/* What every entry point without a body does: act out faults, then say that it is not supported. */
int cuda_unsupported(const char *symbol);

#endif
