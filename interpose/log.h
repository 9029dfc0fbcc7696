/* Messages on stderr, off unless asked for: programs parse what they print.
 *
 * LIBCUDA_LOG_LEVEL: 0 and 1 errors (the default), 2 warnings, 3 information, 4 debugging. One write a line, no
 * allocation, errno kept. The only line at the default level is the one that says why everything is refused.
 */
#ifndef HAMI_LOG_H
#define HAMI_LOG_H

enum log_level { LOG_ERROR = 1, LOG_WARNING = 2, LOG_INFORMATION = 3, LOG_DEBUG = 4 };

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
