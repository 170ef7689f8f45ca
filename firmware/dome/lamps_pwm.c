/* Lights on the PWM outputs of the timers: phase-correct, 8 bits, undivided, which is 31.4 kHz at 16 MHz and a duty of
 * exactly level / 255. */
#include <util/atomic.h>

#include "board.h"
#include "hardware.h"
#include "pins.h"

#ifndef SHIFT_CHIP

#define TCCR_(timer, output) TCCR##timer##output
#define COM_(timer, output) COM##timer##output##1
#define OCR_(timer, output) OCR##timer##output

void lamps_init(void)
{
#define INIT(port, bit, timer, output) \
    PORT##port &= ~(1 << (bit)); \
    DDR##port |= 1 << (bit); \
    TCCR_(timer, A) = (TCCR_(timer, A) & 0xFC) | 1; \
    TCCR_(timer, B) = 1;
    LIGHTS(INIT)
}

/* "Off" takes the pin from the timer. A compare value of 0 is the same in this mode, and a spike of a step in others. */
#define OFF(port, bit, timer, output) \
    TCCR_(timer, A) &= ~(1 << COM_(timer, output)); \
    OCR_(timer, output) = 0;

void lamps_dark(void)
{
    LIGHTS(OFF)
}

void lamps_show(const uint8_t level[])
{
#define SHOW(port, bit, timer, output) \
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE) \
    { \
        if (*level) { \
            OCR_(timer, output) = *level; \
            TCCR_(timer, A) |= 1 << COM_(timer, output); \
        } else { \
            OFF(port, bit, timer, output) \
        } \
        level++; \
    }
    LIGHTS(SHOW)
}

#endif
