/* A GenTL producer with one camera that packs, pads, sends chunks, and misbehaves as its node Fault tells it.
 *
 * cc -shared -fPIC -pthread -fvisibility=hidden -o testing.cti gentl_producer.c
 *
 * Its nodes are in the file that GNOMON_TEST_XML names (genicam_fakes.describe_producer writes it); its
 * registers are those of `struct registers`, 4 bytes each, little-endian, in that order. A sample is (3
 * column + 5 row + 7 frame + exposure in us / 100) modulo its range. After EMVA's GenTL 1.5.
 *
 * Running freely it tells each exposure by writing `sync 1` and `sync 0` to the pipe that GNOMON_TEST_LINE names: the
 * emulator of the dome reads such. Where there is one, exposures take their time, also when triggered. A digit in the pipe that GNOMON_TEST_FAULTS
 * names is the fault of the next frame, and `c` cuts the wire of that signal.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default"))) int32_t
typedef void *Handle;

enum {
    OK = 0,
    ERROR = -1001,
    NOT_IMPLEMENTED = -1003,
    IN_USE = -1004,
    INVALID_ID = -1007,
    NO_DATA = -1008,
    IO = -1010,
    TIMED_OUT = -1011,
    ABORTED = -1012,
    NOT_AVAILABLE = -1014,
    TOO_SMALL = -1016,
    INVALID_INDEX = -1017
};
enum { STRING = 1, INT32 = 5, UINT32 = 6, UINT64 = 8, PTR = 10, BOOL8 = 11, SIZET = 12, PTRDIFF = 14 };
enum { FINE, INCOMPLETE, DROPPED, LATE, SHORT, VANISHED, DOUBLED, HANGING, CRASHING, MISTOLD };
enum { REGISTERS = 0x1000, XML = 0x100000, BUFFERS = 64, CHUNK = 20 };

static struct registers {
    uint32_t width, height, format, exposure_us, trigger, start, stop, trigger_mode, fault, payload, padding,
        chunks, gain, rate, chunk_error_us, grain_us, counting, count;
} reg;
static struct buffer {
    uint8_t *base;
    size_t size, filled;
    void *user;
    int used, queued, complete;
    uint32_t height;
    uint64_t id, time_ns;
} buffers[BUFFERS];
static int waiting[4096], begin, end; /* buffers that are full, in turn */
static int streaming, acquiring, vanished, device_open, killed;
static uint64_t frames;
static char *xml;
static size_t xml_size;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_t pacer;
static int pacing;
static int line = -1, faults = -1, cut; /* pipes, and whether the wire of the first is cut */
static uint64_t begun_ns;               /* of the exposure */
static char tl, iface, device, remote, stream, event;

static int32_t give(const void *value, size_t size, int32_t type, int32_t *kind, void *to, size_t *room) {
    if (kind) *kind = type;
    if (to) {
        if (*room < size) return TOO_SMALL;
        memcpy(to, value, size);
    }
    *room = size;
    return OK;
}
static int32_t text(const char *value, int32_t *kind, void *to, size_t *room) {
    return give(value, strlen(value) + 1, STRING, kind, to, room);
}
#define NUMBER(value, ctype, type)                                                                           \
    do {                                                                                                     \
        ctype number_ = (ctype)(value);                                                                      \
        return give(&number_, sizeof number_, type, kind, to, room);                                         \
    } while (0)

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}
static int bits_of(uint32_t f) { /* of one sample */
    if (f == 0x01080001 || f == 0x02180014) return 8;
    if (f == 0x01100003 || f == 0x010A0046 || f == 0x010C0004) return 10;
    if (f == 0x01100025 || f == 0x010E0104) return 14;
    return f == 0x01100007 ? 16 : 12;
}
static int channels_of(uint32_t f) { return f == 0x02180014 ? 3 : 1; }
static int stored_of(uint32_t f) { /* bits in memory, 0 for GigE Vision's pairs */
    if (f == 0x010C0004 || f == 0x010C0006) return 0;
    if (f == 0x010A0046 || f == 0x010C0047 || f == 0x010E0104) return bits_of(f);
    return bits_of(f) > 8 ? 16 : 8;
}
static size_t row_bytes(uint32_t f, size_t samples) {
    int s = stored_of(f);
    return s ? (samples * s + 7) / 8 : samples / 2 * 3 + samples % 2 * 2;
}
static void put(uint8_t *row, uint32_t f, size_t place, uint32_t v) {
    int s = stored_of(f), b = bits_of(f);
    if (!s) {
        uint8_t *p = row + place / 2 * 3;
        int low = b - 8;
        if (place % 2) {
            p[1] |= (v & ((1u << low) - 1)) << 4;
            p[2] = v >> low;
        } else {
            p[0] = v >> low;
            p[1] |= v & ((1u << low) - 1);
        }
        return;
    }
    for (int i = 0; i < s; i++)
        if (v >> i & 1) row[(place * s + i) / 8] |= 1u << (place * s + i) % 8;
}
static size_t image_bytes(void) { /* padding 0xFFFF: bits run on over the rows */
    size_t samples = (size_t)reg.width * channels_of(reg.format);
    if (reg.padding == 0xFFFF) return row_bytes(reg.format, samples * reg.height);
    return (row_bytes(reg.format, samples) + reg.padding) * reg.height;
}
static void signal_exposure(int level) {
    if (line >= 0 && !cut) dprintf(line, "sync %d\n", level);
}
static void take_order(void) { /* with the lock held */
    char order;
    if (faults < 0 || read(faults, &order, 1) != 1) return;
    if (order == 'c') cut = 1;
    else reg.fault = order - '0';
}
static void make_frame(void) { /* with the lock held */
    int fault = reg.fault;
    reg.fault = FINE;
    frames++;
    if (fault == VANISHED) {
        vanished = 1;
        return;
    }
    if (fault == CRASHING) abort();
    if (fault == DROPPED) return;
    int i = 0;
    while (i < BUFFERS && !(buffers[i].used && buffers[i].queued == 1)) i++;
    if (i == BUFFERS) return; /* starved */
    struct buffer *b = &buffers[i];
    size_t samples = (size_t)reg.width * channels_of(reg.format),
           stride = row_bytes(reg.format, samples) + reg.padding;
    size_t size = image_bytes();
    if (b->size < size + (reg.chunks ? CHUNK : 0)) return;
    memset(b->base, reg.padding == 0xFFFF ? 0 : 0xEE, size);
    for (size_t y = 0; y < reg.height; y++) {
        uint8_t *row = reg.padding == 0xFFFF ? b->base : b->base + y * stride;
        if (reg.padding != 0xFFFF) memset(row, 0, row_bytes(reg.format, samples));
        for (size_t x = 0; x < samples; x++) {
            uint32_t v =
                (3 * x + 5 * y + 7 * frames + reg.exposure_us / 100) & ((1u << bits_of(reg.format)) - 1);
            put(row, reg.format, reg.padding == 0xFFFF ? y * samples + x : x, v);
        }
    }
    b->filled = size;
    if (reg.chunks) {
        uint32_t error_us = fault == MISTOLD ? 5000 : reg.chunk_error_us;
        uint32_t c[5] = {reg.exposure_us + error_us, 0, 0, 0, (uint32_t)frames};
        memcpy(b->base + size, c, CHUNK);
        b->filled += CHUNK;
    }
    b->complete = fault != INCOMPLETE;
    b->height = fault == SHORT ? reg.height / 2 : reg.height;
    b->id = frames;
    b->time_ns = line >= 0 ? begun_ns++ : now_ns(); /* never the same for two */
    b->queued = 2;
    waiting[end++ % 4096] = i;
    pthread_cond_broadcast(&changed);
}
static void *later(void *unused) {
    usleep(400000);
    pthread_mutex_lock(&lock);
    if (acquiring) make_frame();
    pthread_mutex_unlock(&lock);
    return unused;
}
static void triggered(void) {
    if (!acquiring || reg.trigger_mode == 0) return;
    take_order();
    begun_ns = now_ns();
    if (line >= 0) usleep(reg.exposure_us); /* who follows the lamps wants a picture no earlier than its light */
    if (reg.fault == LATE) {
        reg.fault = FINE;
        pthread_t t;
        pthread_create(&t, 0, later, 0);
        pthread_detach(t);
        return;
    }
    if (reg.fault == DOUBLED) make_frame();
    make_frame();
}
static void *pace(void *unused) {
    for (uint32_t made = 0;; made++) {
        pthread_mutex_lock(&lock);
        int on = pacing && !(reg.counting && made == reg.count);
        pthread_mutex_unlock(&lock);
        if (!on) return unused;
        begun_ns = now_ns();
        signal_exposure(1);
        if (line >= 0) usleep(reg.exposure_us);
        signal_exposure(0);
        pthread_mutex_lock(&lock);
        take_order();
        if (pacing && reg.fault == DOUBLED) make_frame();
        if (pacing) make_frame();
        pthread_mutex_unlock(&lock);
        usleep(1000000 / (reg.rate ? reg.rate : 50));
    }
}
static void stop_pacing(void) {
    pthread_mutex_lock(&lock);
    int was = pacing;
    pacing = 0;
    acquiring = 0;
    pthread_mutex_unlock(&lock);
    if (was) pthread_join(pacer, 0);
}

API GCInitLib(void) {
    const char *path = getenv("GNOMON_TEST_XML");
    FILE *f = path ? fopen(path, "rb") : 0;
    if (!f) return ERROR;
    xml = malloc(1 << 20);
    xml_size = fread(xml, 1, 1 << 20, f);
    fclose(f);
    reg = (struct registers){
        .width = 64, .height = 48, .format = 0x01080001, .exposure_us = 5000, .trigger_mode = 0};
    const char *wire = getenv("GNOMON_TEST_LINE"), *orders = getenv("GNOMON_TEST_FAULTS");
    if (wire && line < 0) line = open(wire, O_RDWR | O_CLOEXEC);
    if (orders && faults < 0) faults = open(orders, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    vanished = streaming = acquiring = begin = end = device_open = 0;
    frames = 0;
    memset(buffers, 0, sizeof buffers);
    return OK;
}
API GCCloseLib(void) {
    free(xml);
    xml = 0;
    return OK;
}
API GCGetLastError(int32_t *code, char *message, size_t *room) {
    static const char none[] = "the test producer says no";
    if (code) *code = ERROR;
    if (message && *room >= sizeof none) memcpy(message, none, sizeof none);
    *room = sizeof none;
    return OK;
}
static int32_t about_producer(int32_t what, int32_t *kind, void *to, size_t *room) {
    if (what == 9) NUMBER(1, uint32_t, UINT32);
    if (what == 10) NUMBER(5, uint32_t, UINT32);
    if (what == 8) NUMBER(0, int32_t, INT32);
    if (what == 4) return text("Custom", kind, to, room);
    return text("TestTL", kind, to, room);
}
API GCGetInfo(int32_t what, int32_t *kind, void *to, size_t *room) {
    return about_producer(what, kind, to, room);
}
API TLGetInfo(Handle h, int32_t what, int32_t *kind, void *to, size_t *room) {
    return about_producer(what, kind, to, room);
}
API TLOpen(Handle *h) {
    *h = &tl;
    return OK;
}
API TLClose(Handle h) { return OK; }
API TLUpdateInterfaceList(Handle h, uint8_t *c, uint64_t ms) {
    if (c) *c = 0;
    return OK;
}
API TLGetNumInterfaces(Handle h, uint32_t *n) {
    *n = 1;
    return OK;
}
API TLGetInterfaceID(Handle h, uint32_t i, char *to, size_t *room) {
    if (i) return INVALID_INDEX;
    return text("TestIF", 0, to, room);
}
API TLGetInterfaceInfo(Handle h, const char *id, int32_t what, int32_t *kind, void *to, size_t *room) {
    return text(what == 2 ? "Custom" : "TestIF", kind, to, room);
}
API TLOpenInterface(Handle h, const char *id, Handle *out) {
    *out = &iface;
    return OK;
}
API IFClose(Handle h) { return OK; }
API IFGetInfo(Handle h, int32_t what, int32_t *kind, void *to, size_t *room) {
    return text(what == 2 ? "Custom" : "TestIF", kind, to, room);
}
API IFGetParentTL(Handle h, Handle *out) {
    *out = &tl;
    return OK;
}
API IFUpdateDeviceList(Handle h, uint8_t *c, uint64_t ms) {
    if (c) *c = 0;
    return OK;
}
API IFGetNumDevices(Handle h, uint32_t *n) {
    *n = 1;
    return OK;
}
API IFGetDeviceID(Handle h, uint32_t i, char *to, size_t *room) {
    if (i) return INVALID_INDEX;
    return text("TestDev", 0, to, room);
}
static int32_t about_device(int32_t what, int32_t *kind, void *to, size_t *room) {
    switch (what) {
    case 1: return text("gnomon", kind, to, room);
    case 3: return text("Custom", kind, to, room);
    case 5: NUMBER(vanished ? 3 : device_open ? 5 : 1, int32_t, INT32);
    case 7: return text("T1", kind, to, room);
    case 9: NUMBER(1000000000, uint64_t, UINT64);
    case 6: return NOT_AVAILABLE;
    default: return text(what == 8 ? "1.0" : "TestDev", kind, to, room);
    }
}
API IFGetDeviceInfo(Handle h, const char *id, int32_t what, int32_t *kind, void *to, size_t *room) {
    return about_device(what, kind, to, room);
}
API DevGetInfo(Handle h, int32_t what, int32_t *kind, void *to, size_t *room) {
    return about_device(what, kind, to, room);
}
API IFOpenDevice(Handle h, const char *id, int32_t flags, Handle *out) {
    if (device_open) return IN_USE;
    device_open = 1;
    *out = &device;
    return OK;
}
API DevClose(Handle h) {
    stop_pacing();
    device_open = 0;
    return OK;
}
API DevGetPort(Handle h, Handle *out) {
    *out = &remote;
    return OK;
}
API DevGetParentIF(Handle h, Handle *out) {
    *out = &iface;
    return OK;
}
API DevGetNumDataStreams(Handle h, uint32_t *n) {
    *n = 1;
    return OK;
}
API DevGetDataStreamID(Handle h, uint32_t i, char *to, size_t *room) {
    if (i) return INVALID_INDEX;
    return text("TestDS", 0, to, room);
}
API DevOpenDataStream(Handle h, const char *id, Handle *out) {
    *out = &stream;
    return OK;
}

API GCGetPortInfo(Handle h, int32_t what, int32_t *kind, void *to, size_t *room) {
    if (what == 5 || what == 7 || what == 8) NUMBER(1, uint8_t, BOOL8);
    if (what == 6 || what == 9 || what == 10) NUMBER(0, uint8_t, BOOL8);
    return text(what == 12 ? "Device" : what == 3 ? "Custom" : "TestPort", kind, to, room);
}
API GCGetNumPortURLs(Handle h, uint32_t *n) {
    *n = h == &remote;
    return h == &remote ? OK : NOT_AVAILABLE;
}
static int32_t url(void *to, int32_t *kind, size_t *room) {
    char s[80];
    snprintf(s, sizeof s, "local:testing.xml;%X;%zX", XML, xml_size);
    return text(s, kind, to, room);
}
API GCGetPortURL(Handle h, char *to, size_t *room) { return h == &remote ? url(to, 0, room) : NOT_AVAILABLE; }
API GCGetPortURLInfo(Handle h, uint32_t i, int32_t what, int32_t *kind, void *to, size_t *room) {
    if (h != &remote || i) return NOT_AVAILABLE;
    if (what == 0) return url(to, kind, room);
    if (what == 7) NUMBER(XML, uint64_t, UINT64);
    if (what == 8) NUMBER(xml_size, uint64_t, UINT64);
    if (what >= 1 && what <= 5) NUMBER(1, int32_t, INT32);
    return NOT_AVAILABLE;
}
API GCReadPort(Handle h, uint64_t address, void *to, size_t *size) {
    if (h != &remote) return NOT_IMPLEMENTED;
    if (vanished) return IO;
    if (address >= XML) {
        memcpy(to, xml + (address - XML), *size);
        return OK;
    }
    if (reg.fault == HANGING) {
        reg.fault = FINE;
        sleep(30);
    }
    if (address < REGISTERS || address - REGISTERS + *size > sizeof reg) return IO;
    reg.payload = image_bytes() + 64;
    memcpy(to, (char *)&reg + (address - REGISTERS), *size);
    return OK;
}
API GCWritePort(Handle h, uint64_t address, const void *from, size_t *size) {
    if (h != &remote) return NOT_IMPLEMENTED;
    if (vanished) return IO;
    if (address < REGISTERS || address - REGISTERS + *size > sizeof reg) return IO;
    pthread_mutex_lock(&lock);
    memcpy((char *)&reg + (address - REGISTERS), from, *size);
    uint32_t at = address - REGISTERS;
    int stop = at == 24;
    if (at == 12 && reg.grain_us) reg.exposure_us = reg.exposure_us / reg.grain_us * reg.grain_us;
    if (at == 16) triggered();
    if (at == 20) {
        acquiring = 1;
        if (!reg.trigger_mode && !pacing) {
            pacing = 1;
            pthread_create(&pacer, 0, pace, 0);
        }
    }
    pthread_mutex_unlock(&lock);
    if (stop) stop_pacing();
    return OK;
}
API GCReadPortStacked(Handle h, void *e, size_t *n) { return NOT_IMPLEMENTED; }
API GCWritePortStacked(Handle h, void *e, size_t *n) { return NOT_IMPLEMENTED; }

API DSAnnounceBuffer(Handle h, void *base, size_t size, void *user, Handle *out) {
    for (int i = 0; i < BUFFERS; i++)
        if (!buffers[i].used) {
            buffers[i] = (struct buffer){.base = base, .size = size, .user = user, .used = 1};
            *out = &buffers[i];
            return OK;
        }
    return ERROR;
}
API DSAllocAndAnnounceBuffer(Handle h, size_t size, void *user, Handle *out) { return NOT_IMPLEMENTED; }
API DSRevokeBuffer(Handle h, Handle b, void **base, void **user) {
    struct buffer *x = b;
    if (base) *base = x->base;
    if (user) *user = x->user;
    x->used = x->queued = 0;
    return OK;
}
API DSQueueBuffer(Handle h, Handle b) {
    pthread_mutex_lock(&lock);
    ((struct buffer *)b)->queued = 1;
    pthread_mutex_unlock(&lock);
    return OK;
}
API DSFlushQueue(Handle h, int32_t how) {
    pthread_mutex_lock(&lock);
    begin = end;
    for (int i = 0; i < BUFFERS; i++)
        if (buffers[i].used) buffers[i].queued = how == 2 || how == 3;
    pthread_mutex_unlock(&lock);
    return OK;
}
API DSStartAcquisition(Handle h, int32_t flags, uint64_t n) {
    streaming = 1;
    return OK;
}
API DSStopAcquisition(Handle h, int32_t flags) {
    streaming = 0;
    return OK;
}
API DSClose(Handle h) { return OK; }
API DSGetParentDev(Handle h, Handle *out) {
    *out = &device;
    return OK;
}
API DSGetBufferID(Handle h, uint32_t i, Handle *out) {
    if (i >= BUFFERS || !buffers[i].used) return INVALID_INDEX;
    *out = &buffers[i];
    return OK;
}
API DSGetInfo(Handle h, int32_t what, int32_t *kind, void *to, size_t *room) {
    switch (what) {
    case 0: return text("TestDS", kind, to, room);
    case 7: NUMBER(image_bytes() + 64, size_t, SIZET);
    case 8: NUMBER(streaming, uint8_t, BOOL8);
    case 9: NUMBER(0, uint8_t, BOOL8);
    case 10: return text("Custom", kind, to, room);
    case 11: NUMBER(4, size_t, SIZET);
    case 12:
    case 13: NUMBER(1, size_t, SIZET);
    default: return NOT_AVAILABLE;
    }
}
API DSGetBufferInfo(Handle h, Handle handle, int32_t what, int32_t *kind, void *to, size_t *room) {
    struct buffer *b = handle;
    switch (what) {
    case 0: NUMBER((uintptr_t)b->base, uintptr_t, PTR);
    case 1: NUMBER(b->size, size_t, SIZET);
    case 2: NUMBER((uintptr_t)b->user, uintptr_t, PTR);
    case 4: NUMBER(1, uint8_t, BOOL8);
    case 5: NUMBER(b->queued, uint8_t, BOOL8);
    case 6: NUMBER(0, uint8_t, BOOL8);
    case 7: NUMBER(!b->complete, uint8_t, BOOL8);
    case 8: return text("Custom", kind, to, room);
    case 9:
    case 27: NUMBER(b->filled, size_t, SIZET);
    case 10: NUMBER(reg.width, size_t, SIZET);
    case 11: NUMBER(reg.height, size_t, SIZET);
    case 12:
    case 13:
    case 15:
    case 18: NUMBER(0, size_t, SIZET);
    case 14: NUMBER(reg.padding == 0xFFFF ? 0 : reg.padding, size_t, SIZET);
    case 16: NUMBER(b->id, uint64_t, UINT64);
    case 17: NUMBER(1, uint8_t, BOOL8);
    case 19: NUMBER(1, size_t, SIZET);
    case 20: NUMBER(reg.format, uint64_t, UINT64);
    case 21: NUMBER(4, uint64_t, UINT64);
    case 22: NUMBER(b->height, size_t, SIZET);
    case 26: NUMBER(1, int32_t, INT32);
    case 28: NUMBER(b->time_ns, uint64_t, UINT64);
    case 30: NUMBER(reg.chunks, uint8_t, BOOL8);
    default: return NOT_AVAILABLE;
    }
}
struct chunk {
    uint64_t id;
    ptrdiff_t offset;
    size_t length;
};
API DSGetBufferChunkData(Handle h, Handle handle, struct chunk *to, size_t *n) {
    struct buffer *b = handle;
    size_t there = reg.chunks ? 1 : 0;
    if (to && there) {
        if (*n < 1) return TOO_SMALL;
        to[0] = (struct chunk){1, (ptrdiff_t)(b->filled - CHUNK), CHUNK};
    }
    *n = there;
    return OK;
}
API DSGetNumBufferParts(Handle h, Handle b, uint32_t *n) {
    *n = 0;
    return NO_DATA;
}
API DSGetBufferPartInfo(Handle h, Handle b, uint32_t i, int32_t what, int32_t *kind, void *to, size_t *room) {
    return NO_DATA;
}

API GCRegisterEvent(Handle h, int32_t type, Handle *out) {
    if (h != &stream || type != 1) return NOT_IMPLEMENTED;
    *out = &event;
    return OK;
}
API GCUnregisterEvent(Handle h, int32_t type) { return OK; }
API EventFlush(Handle h) {
    pthread_mutex_lock(&lock);
    begin = end;
    pthread_mutex_unlock(&lock);
    return OK;
}
API EventKill(Handle h) {
    pthread_mutex_lock(&lock);
    killed = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return OK;
}
API EventGetInfo(Handle h, int32_t what, int32_t *kind, void *to, size_t *room) {
    if (what == 0) NUMBER(1, int32_t, INT32);
    NUMBER(what == 1 ? (size_t)(end - begin) : 2 * sizeof(void *), size_t, SIZET);
}
API EventGetData(Handle h, void *to, size_t *room, uint64_t ms) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    uint64_t ns = t.tv_nsec + ms % 1000 * 1000000;
    t.tv_sec += ms / 1000 + ns / 1000000000;
    t.tv_nsec = ns % 1000000000;
    int32_t out = OK;
    pthread_mutex_lock(&lock);
    killed = 0;
    while (begin == end && out == OK) {
        if (killed) out = ABORTED;
        else if (pthread_cond_timedwait(&changed, &lock, &t) == ETIMEDOUT && begin == end) out = TIMED_OUT;
    }
    if (out == OK) {
        struct buffer *b = &buffers[waiting[begin++ % 4096]];
        void *data[2] = {b, b->user};
        b->queued = 0;
        memcpy(to, data, sizeof data);
        *room = sizeof data;
    }
    pthread_mutex_unlock(&lock);
    return out;
}
API EventGetDataInfo(Handle h, const void *in, size_t size, int32_t what, int32_t *kind, void *to,
                     size_t *room) {
    void *const *data = in;
    NUMBER((uintptr_t)data[what == 1], uintptr_t, PTR);
}
