/* 24 lights on three 74HC595 in a chain, each output through a transistor (or three TPIC6B595, which have them).
 * Outputs know on and off only; the level is the duty of OE, one for all lights that burn together. */
#define BOARD_NAME "hc595"
#define SHIFT_CHIP CHIP_HC595
#ifndef CHANNELS
#define CHANNELS 24
#endif

#ifndef MAX_LIT
#define MAX_LIT 8
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
