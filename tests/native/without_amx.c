/* Preloaded: the kernel does not let this process use AMX tiles, as sandboxes do. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>

#define REQUEST_TILES 0x1023 /* ARCH_REQ_XCOMP_PERM */

long syscall(long number, ...) {
    va_list list;
    long    x[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++) {
        x[i] = va_arg(list, long);
    }
    va_end(list);
#ifdef SYS_arch_prctl
    if (number == SYS_arch_prctl && x[0] == REQUEST_TILES) {
        errno = EINVAL;
        return -1;
    }
#endif
    long (*real)(long, ...) = (long (*)(long, ...)) dlsym(RTLD_NEXT, "syscall");
    return real(number, x[0], x[1], x[2], x[3], x[4], x[5]);
}
