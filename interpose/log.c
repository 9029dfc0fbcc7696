#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int wanted(void)
{
    static int level; /* 0: not read yet; two threads reading it at once read the same */
    int known = __atomic_load_n(&level, __ATOMIC_RELAXED);
    if (known == 0) {
        const char *text = getenv("LIBCUDA_LOG_LEVEL");
        known = text ? atoi(text) : LOG_ERROR;
        known = known < LOG_ERROR ? LOG_ERROR : known;
        __atomic_store_n(&level, known, __ATOMIC_RELAXED);
    }
    return known;
}

void log_line(enum log_level level, const char *format, ...)
{
    if ((int)level > wanted())
        return;
    int saved = errno;
    char line[512];
    int head = snprintf(line, sizeof line, "[hami %d] ", (int)getpid());
    va_list arguments;
    va_start(arguments, format);
    int body = vsnprintf(line + head, sizeof line - (size_t)head - 1, format, arguments);
    va_end(arguments);
    size_t length = (size_t)head + (body < 0 ? 0 : (size_t)body);
    if (length > sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, length);
    (void)written; /* a closed stderr is the program's business */
    errno = saved;
}
