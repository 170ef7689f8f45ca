/* Runs the dome's firmware on simavr. See docs/dome-firmware.md. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <avr_extint.h>
#include <sim_elf.h>
#include <sim_io.h>

#include "emulator.h"

struct emulator emulator = {.reset_by_dtr = true};

enum { SLICE_US = 300, LONGEST_LAG_US = 100000, BOOTLOADER_US = 50000, RUN_ON_CYCLES = 160, POWER_ON_BYTE = 0xA5 };

static enum { REAL_TIME, FREE, STEPPED } pace;
static bool ended, just_reset, deaf;
static char reset_cause = 'W'; /* who else but the chip's own watchdog */

/* The instruction that was overwritten to hang the program. */
static bool jammed;
static avr_flashaddr_t jammed_at;
static uint8_t jammed_code[2];

static double now_us(void)
{
    return emulator.avr->cycle * 1e6 / emulator.wiring.clock_hz;
}

static avr_cycle_count_t cycles(double us)
{
    return (avr_cycle_count_t)(us * emulator.wiring.clock_hz / 1e6);
}

void report(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("{\"t_us\": %.4f, ", now_us());
    vprintf(format, arguments);
    puts("}");
    va_end(arguments);
    fflush(stdout);
}

static void on_reset(avr_io_t *io)
{
    (void)io;
    if (jammed)
        memcpy(emulator.avr->flash + jammed_at, jammed_code, sizeof jammed_code);
    jammed = false;
    just_reset = true;
    emulator.starts_at = 0;
    emulator.avr->run_cycle_limit = RUN_ON_CYCLES;
    report("\"reset\": \"%c\"", reset_cause);
    serial_forget();
    board_restore_inputs();
}

static avr_io_t reset_listener = {.kind = "dome", .reset = on_reset};

void reset_chip(char cause)
{
    avr_t *avr = emulator.avr;
    /* Flags stay until the program clears them, or the power goes. */
    avr_io_addr_t flags_at = avr->reset_flags.porf.reg;
    uint8_t flags = cause == 'P' ? 0 : avr->data[flags_at];
    reset_cause = cause;
    if (cause == 'P')
        memset(avr->data + avr->ioend + 1, POWER_ON_BYTE, avr->ramend - avr->ioend);
    avr_reset(avr);
    avr->data[flags_at] |= flags;
    avr_regbit_set(avr, cause == 'P' ? avr->reset_flags.porf
                        : cause == 'B' ? avr->reset_flags.borf
                                       : avr->reset_flags.extrf);
    reset_cause = 'W';
}

/* A client flushes its terminal after it has opened it; what a program without a bootloader says first would be lost. */
void reset_by_dtr(void)
{
    reset_chip('E');
    emulator.starts_at = emulator.avr->cycle + cycles(BOOTLOADER_US);
}

static void jam(void)
{
    avr_t *avr = emulator.avr;
    if (jammed)
        return;
    jammed = true;
    jammed_at = avr->pc;
    memcpy(jammed_code, avr->flash + jammed_at, sizeof jammed_code);
    memcpy(avr->flash + jammed_at, "\xFF\xCF", sizeof jammed_code); /* rjmp to itself */
}

/* The longest stretch of memory that still holds what power-on left: what the stack has not reached. */
static void show_free_memory(void)
{
    avr_t *avr = emulator.avr;
    int run = 0, longest = 0;
    for (int i = avr->ioend + 1; i <= avr->ramend; i++) {
        run = avr->data[i] == POWER_ON_BYTE ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    report("\"ram_untouched\": %d", longest);
}

/* A sleeping chip goes to its next event in one step: this is one. */
static avr_cycle_count_t stop_here(avr_t *avr, avr_cycle_count_t when, void *param)
{
    (void)avr, (void)when, (void)param;
    return 0;
}

static void run_until(avr_cycle_count_t cycle)
{
    avr_t *avr = emulator.avr;
    if (avr->cycle < emulator.starts_at)
        avr->cycle = cycle < emulator.starts_at ? cycle : emulator.starts_at;
    if (cycle > avr->cycle)
        avr_cycle_timer_register(avr, cycle - avr->cycle, stop_here, NULL);
    while (avr->cycle < cycle && !ended) {
        if (just_reset) {
            just_reset = false;
            /* A low pin whose interrupt is level-triggered, as after reset, would be polled at every cycle. */
            for (int i = 0; i < EXTINT_COUNT; i++)
                avr_extint_set_strict_lvl_trig(avr, i, 0);
        }
        int state = avr_run(avr);
        if (state == cpu_Done || state == cpu_Crashed) {
            report("\"crashed\": %u", (unsigned)avr->pc);
            ended = true;
        }
    }
}

static void run_for(double us, bool until_line)
{
    avr_cycle_count_t end = emulator.avr->cycle + cycles(us);
    unsigned lines = serial_lines();
    while (emulator.avr->cycle < end && !ended && !(until_line && serial_lines() != lines)) {
        avr_cycle_count_t slice = emulator.avr->cycle + cycles(SLICE_US);
        run_until(slice < end ? slice : end);
        serial_exchange();
    }
    report("\"ran\": true");
}

static bool send_hex(const char *digits)
{
    unsigned byte;
    int used;
    while (sscanf(digits, " %2x%n", &byte, &used) == 1) {
        serial_send(&(uint8_t){byte}, 1);
        digits += used;
    }
    return digits[strspn(digits, " \r\n")] == 0;
}

static void obey(char *command)
{
    char word[16] = "";
    int channel, value;
    double high_us, period_us = 0, us;
    long count = 1;
    command[strcspn(command, "\n")] = 0;
    if (sscanf(command, "run %lf", &us) == 1 && pace == STEPPED)
        run_for(us, false);
    else if (sscanf(command, "listen %lf", &us) == 1 && pace == STEPPED)
        run_for(us, true);
    else if (!strncmp(command, "send ", 5)) {
        serial_send((uint8_t *)command + 5, strlen(command + 5));
        serial_send((uint8_t *)"\n", 1);
    } else if (!strncmp(command, "hex ", 4) && send_hex(command + 4))
        ;
    else if (sscanf(command, "sync %d", &value) == 1)
        board_set_sync(value);
    else if (sscanf(command, "pulse %lf %ld %lf", &high_us, &count, &period_us) >= 1)
        board_pulse_sync(high_us, count, period_us > high_us ? period_us : 2 * high_us);
    else if (sscanf(command, "interlock %15s", word) == 1 && (!strcmp(word, "open") || !strcmp(word, "closed")))
        board_set_interlock(!strcmp(word, "closed"));
    else if (sscanf(command, "adc %d %d", &channel, &value) == 2)
        board_set_adc(channel, value);
    else if (sscanf(command, "reset %1[PEB]", word) == 1)
        reset_chip(*word);
    else if (!strcmp(command, "memory"))
        show_free_memory();
    else if (!strcmp(command, "jam"))
        jam();
    else if (!strcmp(command, "unplug"))
        serial_unplug();
    else if (!strcmp(command, "plug")) {
        serial_unplug();
        report("\"port\": \"%s\"", serial_plug(NULL));
    } else if (!strcmp(command, "quit"))
        ended = true;
    else if (*command)
        fprintf(stderr, "unknown command: %s\n", command);
}

/* Commands that have come, as far as there are whole lines. */
static void take_commands(bool wait)
{
    static char buffer[65536];
    static size_t filled;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    while (!ended && !deaf && (wait || poll(&input, 1, 0) > 0)) {
        ssize_t size = read(0, buffer + filled, sizeof buffer - 1 - filled);
        if (size <= 0) {
            if (size < 0 && errno == EINTR)
                return;
            /* The end of a pipe is the end of whoever started us; /dev/null, of a job in the background, is not. */
            struct stat status;
            bool piped = !fstat(0, &status) && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode));
            ended = wait || piped;
            deaf = true;
            return;
        }
        filled += size;
        buffer[filled] = 0;
        char *at = buffer, *end;
        while (!ended && (end = strchr(at, '\n'))) {
            *end = 0;
            obey(at);
            at = end + 1;
        }
        filled -= at - buffer;
        memmove(buffer, at, filled);
        if (filled == sizeof buffer - 1)
            filled = 0;
        if (wait)
            return;
    }
}

static double wall_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec * 1e-3;
}

static void wait_us(double us)
{
    struct pollfd files[3] = {{.fd = deaf ? -1 : 0, .events = POLLIN}};
    int fds[2];
    int count = 1 + serial_fds(fds);
    for (int i = 1; i < count; i++)
        files[i] = (struct pollfd){.fd = fds[i - 1], .events = POLLIN};
    struct timespec time = {.tv_nsec = (long)(us * 1e3)};
    ppoll(files, count, &time, NULL);
}

static void run_paced(void)
{
    double begin = wall_us() - now_us();
    while (!ended) {
        take_commands(false);
        serial_exchange();
        double ahead = pace == REAL_TIME ? now_us() - (wall_us() - begin) : 0;
        if (ahead > 0) {
            wait_us(ahead < SLICE_US ? ahead : SLICE_US);
            continue;
        }
        /* A computer that had no time for us: the firmware's watchdogs must not see the lost time in one go. */
        if (-ahead > LONGEST_LAG_US) {
            begin += -ahead;
            report("\"lag_us\": %.0f", -ahead);
        }
        run_until(emulator.avr->cycle + cycles(SLICE_US));
    }
}

static void log_errors(avr_t *avr, const int level, const char *format, va_list arguments)
{
    (void)avr;
    if (level <= LOG_ERROR)
        vfprintf(stderr, format, arguments);
}

/* The program paces itself, and never for the length of a sleep. */
static void no_sleep(avr_t *avr, avr_cycle_count_t cycles)
{
    (void)avr, (void)cycles;
}

static void stop(int signal)
{
    (void)signal;
    ended = true;
}

static const char usage[] =
    "usage: emulator [--pace real|free|step] [--link PATH] [--pins] [--serial] [--no-dtr] firmware.elf\n"
    "Events go to standard output as JSON lines, commands come from standard input; the end of a pipe there ends the program.\n";

int main(int argc, char **argv)
{
    const char *link = NULL, *file = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--pins"))
            emulator.show_pins = true;
        else if (!strcmp(argv[i], "--serial"))
            emulator.show_serial = true;
        else if (!strcmp(argv[i], "--no-dtr"))
            emulator.reset_by_dtr = false;
        else if (!strcmp(argv[i], "--link") && i + 1 < argc)
            link = argv[++i];
        else if (!strcmp(argv[i], "--pace") && i + 1 < argc) {
            i++;
            pace = !strcmp(argv[i], "free") ? FREE : !strcmp(argv[i], "step") ? STEPPED : REAL_TIME;
        } else if (*argv[i] != '-' && !file)
            file = argv[i];
        else {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (!file) {
        fputs(usage, stderr);
        return 2;
    }
    if (!board_read_wiring(file, &emulator.wiring)) {
        fprintf(stderr, "%s: no firmware of a dome: make -C firmware/dome\n", file);
        return 2;
    }
    avr_global_logger_set(log_errors);
    static elf_firmware_t firmware;
    emulator.avr = avr_make_mcu_by_name(emulator.wiring.chip);
    if (!emulator.avr || elf_read_firmware(file, &firmware)) {
        fprintf(stderr, "%s: simavr does not take it\n", file);
        return 2;
    }
    avr_t *avr = emulator.avr;
    avr_init(avr);
    avr->frequency = emulator.wiring.clock_hz;
    avr->vcc = avr->avcc = avr->aref = 5000;
    avr_load_firmware(avr, &firmware);
    avr->sleep = no_sleep;
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGTTIN, SIG_IGN);
    serial_attach();
    board_attach();
    avr_register_io(avr, &reset_listener);
    reset_chip('P');
    if (pace == STEPPED) {
        emulator.show_serial = true;
        report("\"board\": \"%.15s\", \"chip\": \"%.15s\", \"channels\": %d, \"max_level\": %d", emulator.wiring.board,
               emulator.wiring.chip, emulator.wiring.channels, emulator.wiring.max_level);
        while (!ended)
            take_commands(true);
    } else {
        /* It has been switched on before anybody comes. */
        run_until(cycles(BOOTLOADER_US));
        report("\"port\": \"%s\", \"board\": \"%.15s\", \"chip\": \"%.15s\", \"channels\": %d, \"max_level\": %d",
               serial_plug(link), emulator.wiring.board, emulator.wiring.chip, emulator.wiring.channels,
               emulator.wiring.max_level);
        run_paced();
        serial_unplug();
    }
    return 0;
}
