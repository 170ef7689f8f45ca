/* The board chosen at build time, what it leaves to the defaults, and what the chip fixes. */
#ifndef BOARD_H
#define BOARD_H

#define SENSOR_NONE 0
#define SENSOR_NTC 1  /* 10 kOhm, B = 3950, to ground; 10 kOhm to AVCC */
#define SENSOR_LM35 2 /* 10 mV per degree, against the chip's 1.1 V */

#define CHIP_HC595 1
#define CHIP_TLC5947 2

#include BOARD_FILE

/* Of shift registers; pins are counted by the board. */
#ifndef CHANNELS
#define CHANNELS 24
#endif

#ifndef TEMPERATURE_SENSOR
#define TEMPERATURE_SENSOR SENSOR_NTC
#endif
#ifndef TEMPERATURE_ADC
#define TEMPERATURE_ADC 0
#endif
#ifndef INTERLOCK
#define INTERLOCK 1
#endif

/* Longest time that a light burns without a pause. */
#ifndef MAX_ON_MS
#define MAX_ON_MS 65000
#endif

/* Share of the time that a light may burn at full level in the long run; 100 for no limit. */
#ifndef DUTY_PCT
#define DUTY_PCT 50
#endif

#ifndef TEMPERATURE_MAX_DC
#define TEMPERATURE_MAX_DC 700
#endif

/* A mechanical contact at the sync input bounces: edges this close to the last are not counted. */
#ifndef SYNC_DEAD_MS
#define SYNC_DEAD_MS 0
#endif

#ifndef DEVICE_UID
#define DEVICE_UID "000000"
#endif

#define DEVICE_NAME "gnomon"
#define DEVICE_FIRMWARE "1.0"
#define MAX_LEVEL 255

#ifdef SHIFT_CHIP
#define COMMON_LEVEL 1 /* all burning lights share one PWM signal */
/* A TLC5947 lights at the fifth edge of its own 4 MHz after BLANK falls, 1 us or so: steps of 1/8 us. */
#define SHIFT_LAG (SHIFT_CHIP == CHIP_TLC5947 ? 9 : 0)
#else
#define COMMON_LEVEL 0
#endif

/* The leaky bucket counts percent x level x ms in 32 bits. */
_Static_assert(DUTY_PCT >= 1 && DUTY_PCT <= 100, "DUTY_PCT is 1 to 100");
_Static_assert((100ULL - DUTY_PCT) * MAX_LEVEL * MAX_ON_MS < 0xF0000000ULL, "MAX_ON_MS is too long");
/* A reply to ID holds seven digits of it. */
_Static_assert(MAX_ON_MS >= 1 && MAX_ON_MS <= 9999999, "MAX_ON_MS is 1 to 9999999");
_Static_assert(CHANNELS <= 254, "channels are counted in a byte");
_Static_assert(MAX_LIT >= 1 && MAX_LIT <= CHANNELS, "MAX_LIT is 1 to CHANNELS");
_Static_assert(sizeof(DEVICE_UID) <= 7, "a reply to ID holds six characters of DEVICE_UID");

/* Pins are written "D, 3". The trigger may be any pin, the sync input is INT0, and OC2B dims shift registers. */
#if defined(__AVR_ATmega328P__)
#define CHIP_NAME "atmega328p"
#define TRIGGER_PIN B, 1
#define SYNC_PIN D, 2
#define OC2B_PIN D, 3
#define SHIFT_DATA B, 3
#define SHIFT_CLOCK B, 5
#define SHIFT_LATCH B, 2
#ifndef INTERLOCK_PIN
#define INTERLOCK_PIN D, 7
#endif
#ifndef MAX_STEPS
#define MAX_STEPS 32
#endif
#elif defined(__AVR_ATmega2560__)
#define CHIP_NAME "atmega2560"
#define TRIGGER_PIN B, 5
#define SYNC_PIN D, 0
#define OC2B_PIN H, 6
#define SHIFT_DATA B, 2
#define SHIFT_CLOCK B, 1
#define SHIFT_LATCH B, 0
#ifndef INTERLOCK_PIN
#define INTERLOCK_PIN A, 0
#endif
#ifndef MAX_STEPS
#define MAX_STEPS 128
#endif
#endif

/* Every good line is at most 64 bytes, so a step that names more lights cannot arrive. */
_Static_assert(MAX_STEPS <= 255, "steps are counted in a byte");

#endif
