/* How a board is wired, for the emulator: a section of the ELF file that is not flashed.
 * Read on a little-endian computer, so every field is a byte or a little-endian word. */
#ifndef WIRING_H
#define WIRING_H

#include <stdint.h>

enum { WIRING_LAMPS = 24 };
enum wiring_kind { WIRING_PWM, WIRING_HC595, WIRING_TLC5947 };

/* Port letter and bit; letter 0 where there is none. An array, as a letter alone is no constant in C. */
struct wiring_pin {
    char port[1];
    uint8_t bit;
} __attribute__((packed));

/* A pin with a timer's output: data addresses of TCCRnA and OCRnx, the number of its COMnx1 bit. */
struct wiring_output {
    struct wiring_pin pin;
    uint16_t tccr;
    uint16_t ocr;
    uint8_t com;
} __attribute__((packed));

struct wiring {
    char chip[16];
    char board[16];
    uint32_t clock_hz;
    uint8_t kind;
    uint8_t channels;
    uint8_t max_level;
    uint8_t lag; /* steps by which a TLC5947 lights late */
    struct wiring_pin trigger, sync, interlock;
    uint16_t udr, ucsra; /* data addresses */
    uint8_t adc;
    uint16_t room_mv; /* what the temperature sensor gives at 25 degrees; 0 without one */
    struct wiring_pin data, clock, latch;
    struct wiring_output common;
    struct wiring_output lamp[WIRING_LAMPS];
} __attribute__((packed));

#endif
