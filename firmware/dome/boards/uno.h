/* Arduino Uno or Nano (ATmega328P), 16 MHz: four lights on PWM pins, each through a MOSFET or an LED driver.
 * Pins: port, bit, timer, output of that timer. Timer 1 keeps the time. */
#define BOARD_NAME "uno"
#define CHANNELS 4
#define LIGHTS(X) \
    X(D, 3, 2, B) /* D3 */ \
    X(D, 5, 0, B) /* D5 */ \
    X(D, 6, 0, A) /* D6 */ \
    X(B, 3, 2, A) /* D11 */

#ifndef MAX_LIT
#define MAX_LIT 3
#endif
