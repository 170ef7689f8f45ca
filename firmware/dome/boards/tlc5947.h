/* 24 lights on one TLC5947, constant current, up to 30 mA each.
 * The chip's own PWM runs at 1 kHz, which shows as bands in a picture: a light is on or off for it, and the level is
 * the duty of BLANK, one for all lights that burn together. */
#define BOARD_NAME "tlc5947"
#define SHIFT_CHIP CHIP_TLC5947
#ifndef MAX_LIT
#define MAX_LIT 8
#endif
#ifndef TEMPERATURE_SENSOR
#define TEMPERATURE_SENSOR SENSOR_NONE
#endif
