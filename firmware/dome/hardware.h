/* All that the protocol and the limits ask of the chip. Only the files behind this header touch registers. */
#ifndef HARDWARE_H
#define HARDWARE_H

#include <stdbool.h>
#include <stdint.h>

/* Set by every interrupt that leaves something to do; the main loop clears it before it looks. */
extern volatile bool wake;

/* clock.c: timer 1 */
void clock_init(void);
uint32_t clock_ms(void);

/* Trigger high for `exposure_us`, beginning at least `settle_us` from now; `darken` puts the lamps out with its end.
 * Runs by interrupts. */
void pulse_start(uint32_t settle_us, uint32_t exposure_us, bool darken);
void pulse_abort(void);
bool pulse_take_end(void); /* true once after a pulse has ended by itself */

/* serial.c: USART 0, 115200 8N1 */
void serial_init(void);
bool serial_get(uint8_t *byte);
bool serial_has_room(uint8_t bytes);
void serial_put(uint8_t byte); /* only after serial_has_room */
uint16_t serial_take_lost(void); /* bytes that found no place since the last call */

/* lamps_pwm.c or lamps_shift.c */
/* A timer takes a new level when its count turns, which is this much later at most. */
enum { LAMPS_LATE_US = 32 };
void lamps_init(void);
void lamps_show(const uint8_t level[]); /* one for each channel */
void lamps_dark(void);                  /* at once; also from an interrupt */

/* sense.c: sync input, interlock, temperature */
enum { TEMPERATURE_NONE = -32768, TEMPERATURE_BROKEN = 32767 };
void sense_init(void);
uint8_t sense_take_edges(void); /* ends of exposures since the last call */
void sense_tick(void);          /* every millisecond */
bool sense_interlock_open(void);
int16_t sense_temperature_dc(void);

#endif
