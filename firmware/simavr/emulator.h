/* The dome's firmware on an emulated microcontroller: what the parts of the program know of each other. */
#ifndef EMULATOR_H
#define EMULATOR_H

#include <avr_ioport.h>
#include <sim_avr.h>
#include <stdbool.h>
#include <stdint.h>

#include "../dome/wiring.h"

struct emulator {
    avr_t *avr;
    struct wiring wiring;
    bool show_pins;    /* report the wires of shift registers too */
    bool show_serial;  /* report the lines that the firmware sends */
    bool reset_by_dtr; /* as on an Arduino */
    avr_cycle_count_t starts_at; /* the bootloader runs until then */
};

extern struct emulator emulator;

/* A line of JSON on standard output with the virtual time, in microseconds, in front. */
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* As of now: 'P' power, 'E' external, 'B' brown-out. */
void reset_chip(char cause);
void reset_by_dtr(void);

/* board.c: pins, lamps, and what hangs on the wires */
bool board_read_wiring(const char *elf, struct wiring *wiring);
void board_attach(void);
void board_restore_inputs(void); /* after a reset */
void board_set_sync(bool high);
void board_pulse_sync(double high_us, long count, double period_us);
void board_set_interlock(bool closed);
void board_set_adc(int channel, int millivolts);

/* serial.c: the UART, its pseudo-terminal, and DTR */
void serial_attach(void);
void serial_forget(void); /* after a reset: what was on its way is lost */
const char *serial_plug(const char *link);
void serial_unplug(void);
int serial_fds(int fds[2]); /* to wait on */
void serial_exchange(void); /* everything that can go either way now */
unsigned serial_lines(void); /* that the firmware has sent so far */
void serial_send(const uint8_t *bytes, unsigned count);

#endif
