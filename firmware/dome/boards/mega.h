/* Arduino Mega 2560, 16 MHz: twelve lights on PWM pins, each through a MOSFET or an LED driver.
 * D13 could be a thirteenth, but the bootloader blinks it. */
#define BOARD_NAME "mega"
#define CHANNELS 12
#define LIGHTS(X) \
    X(E, 4, 3, B) /* D2 */ \
    X(E, 5, 3, C) /* D3 */ \
    X(G, 5, 0, B) /* D4 */ \
    X(E, 3, 3, A) /* D5 */ \
    X(H, 3, 4, A) /* D6 */ \
    X(H, 4, 4, B) /* D7 */ \
    X(H, 5, 4, C) /* D8 */ \
    X(H, 6, 2, B) /* D9 */ \
    X(B, 4, 2, A) /* D10 */ \
    X(L, 5, 5, C) /* D44 */ \
    X(L, 4, 5, B) /* D45 */ \
    X(L, 3, 5, A) /* D46 */

#ifndef MAX_LIT
#define MAX_LIT 6
#endif
#ifndef TEMPERATURE_SENSOR
#define TEMPERATURE_SENSOR SENSOR_LM35
#endif
