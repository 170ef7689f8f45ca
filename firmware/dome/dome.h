/* The dome's states: idle, lit, firing, armed, tripped; and what leads from one to another. Knows no register. */
#ifndef DOME_H
#define DOME_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"
#include "lights.h"

/* As the protocol numbers them. */
enum error {
    OK = 0,
    ERROR_CRC = 1,
    ERROR_COMMAND = 2,
    ERROR_ARGUMENT = 3,
    ERROR_BUSY = 4,
    ERROR_TRIPPED = 5,
    ERROR_OVERFLOW = 6,
    ERROR_FRAME = 7,
    ERROR_UNSAFE = 8,
    ERROR_LIMIT = 9,
};

/* An error and one word that says what of. */
struct outcome {
    enum error error;
    const char *word;
};

enum { WATCHDOG_MIN_MS = 100, WATCHDOG_MAX_MS = 60000, WATCHDOG_DEFAULT_MS = 2000 };

void dome_keep_alive(void);
struct outcome dome_set(uint8_t channel, uint8_t level);
struct outcome dome_fire(const char sequence[2], uint8_t channel, uint8_t level, uint32_t settle_us,
                         uint32_t exposure_us);
/* `lighting` may count more lights than it holds, to be refused. */
struct outcome dome_store(uint8_t step, uint8_t exposures, const struct lighting *lighting);
struct outcome dome_arm(uint8_t steps);
void dome_dark(void); /* ends what there is: light, shot, sequence */
void dome_clear(void);
void dome_set_watchdog(uint16_t ms);

char dome_state(void);
const char *dome_cause(void); /* of the trip, "-" without */
uint16_t dome_exposures(void);
uint16_t dome_watchdog_ms(void);

/* Every millisecond, and as often as possible. */
void dome_tick(void);
void dome_poll(void);

/* Writes the next event that waits; false without one. */
bool dome_event(struct message *message);

#endif
