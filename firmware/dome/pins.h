/* Registers of a pin that is written "D, 3". */
#ifndef PINS_H
#define PINS_H

#include <avr/io.h>

#define PIN_PORT_(port, bit) PORT##port
#define PIN_DDR_(port, bit) DDR##port
#define PIN_IN_(port, bit) PIN##port
#define PIN_MASK_(port, bit) (1 << (bit))
#define PIN_WIRING_(port, bit) {#port, bit}

#define PIN_PORT(...) PIN_PORT_(__VA_ARGS__)
#define PIN_DDR(...) PIN_DDR_(__VA_ARGS__)
#define PIN_IN(...) PIN_IN_(__VA_ARGS__)
#define PIN_MASK(...) PIN_MASK_(__VA_ARGS__)
#define PIN_WIRING(...) PIN_WIRING_(__VA_ARGS__)

#endif
