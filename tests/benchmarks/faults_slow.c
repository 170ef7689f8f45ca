/* Preloaded, makes each fsync take 0.4 s longer while the file that GNOMON_TEST_SLOW names is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

int fsync(int handle) {
    const char *slow = getenv("GNOMON_TEST_SLOW");
    if (slow && !access(slow, F_OK)) usleep(400000);
    int (*really)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return really(handle);
}
