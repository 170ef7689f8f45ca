/* Timer 1 counts half microseconds, freely. Compare B gives the millisecond, compare A times the pulse. */
#include <avr/interrupt.h>
#include <util/atomic.h>

#include "board.h"
#include "hardware.h"
#include "pins.h"

enum { TICKS_PER_US = 2, TICKS_PER_MS = 2000 };

/* The alarm rings this much early, which is more than any other interrupt lasts, and the rest is waited for: both
 * edges of the pulse come within a microsecond of their time. */
enum { EARLY = 50 };
/* An edge this near is waited for at once. With the one before, interrupts are held up for less than the two
 * characters that the receiver stores. */
enum { NEAR = EARLY + 40 };
/* A longer way goes in hops, so that an alarm is never half a turn of the counter away. */
enum { HOP = 16384 };

static volatile uint32_t milliseconds;

static volatile enum { QUIET, SETTLING, EXPOSING, ENDED } phase;
static bool darkens;
static uint32_t exposure;
static uint16_t edge; /* counter at the next edge */
static uint32_t wait; /* from the alarm that is set to the last alarm */

void clock_init(void)
{
    PIN_PORT(TRIGGER_PIN) &= ~PIN_MASK(TRIGGER_PIN);
    PIN_DDR(TRIGGER_PIN) |= PIN_MASK(TRIGGER_PIN);
    TCCR1A = 0;
    OCR1B = TICKS_PER_MS;
    TIMSK1 = 1 << OCIE1B;
    TCCR1B = 1 << CS11;
}

uint32_t clock_ms(void)
{
    uint32_t now;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE) now = milliseconds;
    return now;
}

ISR(TIMER1_COMPB_vect)
{
    do {
        OCR1B += TICKS_PER_MS;
        milliseconds++;
    } while ((int16_t)(TCNT1 - OCR1B) >= 0);
    wake = true;
}

static void set_alarm(uint16_t from)
{
    uint16_t hop = wait > HOP + HOP / 2 ? HOP : (uint16_t)wait;
    wait -= hop;
    OCR1A = from + hop;
}

/* Two functions that call each other at most once: an edge that is near calls the next. */
static void take_edge(void);

static void await_edge(uint16_t from, uint32_t ticks)
{
    edge = from + (uint16_t)ticks;
    if (ticks < NEAR) {
        take_edge();
        return;
    }
    wait = ticks - EARLY;
    set_alarm(from);
    TIMSK1 |= 1 << OCIE1A;
}

static void take_edge(void)
{
    TIMSK1 &= ~(1 << OCIE1A);
    while ((int16_t)(TCNT1 - edge) < 0)
        ;
    if (phase == SETTLING) {
        PIN_PORT(TRIGGER_PIN) |= PIN_MASK(TRIGGER_PIN);
        phase = EXPOSING;
        await_edge(edge, exposure);
    } else {
        PIN_PORT(TRIGGER_PIN) &= ~PIN_MASK(TRIGGER_PIN);
        if (darkens)
            lamps_dark();
        phase = ENDED;
        wake = true;
    }
}

ISR(TIMER1_COMPA_vect)
{
    /* The flag may stand from an earlier turn of the counter. */
    if ((int16_t)(TCNT1 - OCR1A) < 0)
        return;
    if (wait)
        set_alarm(OCR1A);
    else
        take_edge();
}

void pulse_start(uint32_t settle_us, uint32_t exposure_us, bool darken)
{
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        darkens = darken;
        exposure = exposure_us * TICKS_PER_US;
        phase = SETTLING;
        /* The count that runs is not a whole one. */
        await_edge(TCNT1, settle_us * TICKS_PER_US + 1);
    }
}

void pulse_abort(void)
{
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        TIMSK1 &= ~(1 << OCIE1A);
        PIN_PORT(TRIGGER_PIN) &= ~PIN_MASK(TRIGGER_PIN);
        phase = QUIET;
    }
}

bool pulse_take_end(void)
{
    if (phase != ENDED)
        return false;
    phase = QUIET;
    return true;
}
