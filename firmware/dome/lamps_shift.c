/* Lights behind shift registers. Each is on or off there; the level is the duty of one signal for all, output B of
 * timer 2 at 31.4 kHz, low for light: OE of 74HC595, BLANK of a TLC5947. A pull-up on it keeps the lights dark until
 * the registers hold something. */
#include <util/atomic.h>

#include "board.h"
#include "hardware.h"
#include "pins.h"

#ifdef SHIFT_CHIP

void lamps_init(void)
{
    PIN_PORT(OC2B_PIN) |= PIN_MASK(OC2B_PIN);
    PIN_DDR(OC2B_PIN) |= PIN_MASK(OC2B_PIN);
    PIN_DDR(SHIFT_DATA) |= PIN_MASK(SHIFT_DATA);
    PIN_DDR(SHIFT_CLOCK) |= PIN_MASK(SHIFT_CLOCK);
    PIN_DDR(SHIFT_LATCH) |= PIN_MASK(SHIFT_LATCH);
    TCCR2A = 1 << WGM20;
    TCCR2B = 1 << CS20;
    static const uint8_t none[CHANNELS];
    lamps_show(none);
}

void lamps_dark(void)
{
    TCCR2A = 1 << WGM20;
    OCR2B = 0;
}

static void shift(uint8_t bits, bool on)
{
    if (on)
        PIN_PORT(SHIFT_DATA) |= PIN_MASK(SHIFT_DATA);
    else
        PIN_PORT(SHIFT_DATA) &= ~PIN_MASK(SHIFT_DATA);
    while (bits--) {
        PIN_PORT(SHIFT_CLOCK) |= PIN_MASK(SHIFT_CLOCK);
        PIN_PORT(SHIFT_CLOCK) &= ~PIN_MASK(SHIFT_CLOCK);
    }
}

void lamps_show(const uint8_t level[])
{
    uint8_t common = 0;
    /* The last channel is the farthest from the data pin; all twelve bits of a TLC5947's channel are alike. */
    for (uint8_t i = CHANNELS; i--;) {
        shift(SHIFT_CHIP == CHIP_TLC5947 ? 12 : 1, level[i]);
        if (level[i])
            common = level[i];
    }
    if (common && common < MAX_LEVEL)
        common = common > MAX_LEVEL - 1 - SHIFT_LAG ? MAX_LEVEL - 1 : common + SHIFT_LAG;
    /* Neither the old lights at the new level nor the new ones at the old. */
    lamps_dark();
    PIN_PORT(SHIFT_LATCH) |= PIN_MASK(SHIFT_LATCH);
    PIN_PORT(SHIFT_LATCH) &= ~PIN_MASK(SHIFT_LATCH);
    if (common) {
        OCR2B = common;
        TCCR2A = 1 << COM2B1 | 1 << COM2B0 | 1 << WGM20;
    }
}

#endif
