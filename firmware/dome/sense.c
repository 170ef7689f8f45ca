/* Inputs: the camera's exposure signal on INT0, the interlock, the temperature. */
#include <avr/interrupt.h>
#include <avr/pgmspace.h>
#include <util/atomic.h>

#include "board.h"
#include "hardware.h"
#include "pins.h"

/* A spark nearby may open the interlock for a millisecond; a door does so for longer. */
enum { INTERLOCK_OPEN_MS = 5 };
enum { SAMPLES = 16 };

static volatile uint8_t edges;
static uint8_t open_ms;
static int16_t temperature_dc = TEMPERATURE_NONE;

void sense_init(void)
{
    PIN_PORT(SYNC_PIN) |= PIN_MASK(SYNC_PIN);
    /* Falling edge: a level would interrupt again and again. */
    EICRA = 1 << ISC01;
    EIFR = 1 << INTF0;
    EIMSK = 1 << INT0;
    if (INTERLOCK)
        PIN_PORT(INTERLOCK_PIN) |= PIN_MASK(INTERLOCK_PIN);
    if (TEMPERATURE_SENSOR != SENSOR_NONE) {
        uint8_t reference = 1 << REFS0; /* AVCC */
        if (TEMPERATURE_SENSOR == SENSOR_LM35) {
#ifdef __AVR_ATmega2560__
            reference = 1 << REFS1; /* 1.1 V inside */
#else
            reference = 1 << REFS1 | 1 << REFS0;
#endif
        }
        ADMUX = reference | TEMPERATURE_ADC;
        ADCSRA = 1 << ADEN | 1 << ADSC | 1 << ADPS2 | 1 << ADPS1 | 1 << ADPS0;
    }
}

ISR(INT0_vect)
{
    /* High again already: a disturbance. */
    if (PIN_IN(SYNC_PIN) & PIN_MASK(SYNC_PIN))
        return;
#if SYNC_DEAD_MS
    static uint32_t last_ms;
    uint32_t now_ms = clock_ms();
    uint32_t since_ms = now_ms - last_ms;
    last_ms = now_ms;
    if (since_ms <= SYNC_DEAD_MS)
        return;
#endif
    if (edges < UINT8_MAX)
        edges++;
    wake = true;
}

uint8_t sense_take_edges(void)
{
    uint8_t taken;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        taken = edges;
        edges = 0;
    }
    return taken;
}

bool sense_interlock_open(void)
{
    return INTERLOCK && open_ms >= INTERLOCK_OPEN_MS;
}

int16_t sense_temperature_dc(void)
{
    return temperature_dc;
}

/* From the sum of SAMPLES conversions. */
static int16_t celsius_tenths(uint16_t sum)
{
#if TEMPERATURE_SENSOR == SENSOR_NTC
    /* R = 10 kOhm exp(3950 (1/T - 1/298.15 K)), every ten degrees from -20: the conversions of a divider with 10 kOhm.
     * Straight lines between them are within half a degree. */
    static const uint16_t curve[] PROGMEM = {
        14964, 13983, 12628, 10954, 9114, 7301, 5677, 4326, 3262, 2452, 1847, 1399, 1068, 823, 641,
    };
    enum { POINTS = sizeof curve / sizeof *curve };
    /* A cable that is cut or shorted. */
    if (sum > pgm_read_word(&curve[0]) || sum < pgm_read_word(&curve[POINTS - 1]))
        return TEMPERATURE_BROKEN;
    uint8_t i = 1;
    while (sum < pgm_read_word(&curve[i]))
        i++;
    uint16_t above = pgm_read_word(&curve[i - 1]), below = pgm_read_word(&curve[i]);
    return -200 + 100 * i - (int16_t)(100UL * (sum - below) / (above - below));
#else
    /* 1.1 V / 1024 / 10 mV in tenths of a degree. */
    return (int16_t)(sum * 1100UL / (1024UL * SAMPLES));
#endif
}

static void sense_temperature(void)
{
    static uint16_t sum;
    static uint8_t samples;
    if (ADCSRA & (1 << ADSC))
        return;
    sum += ADC;
    if (++samples == SAMPLES) {
        temperature_dc = celsius_tenths(sum);
        sum = 0;
        samples = 0;
    }
    ADCSRA |= 1 << ADSC;
}

void sense_tick(void)
{
    if (PIN_IN(INTERLOCK_PIN) & PIN_MASK(INTERLOCK_PIN))
        open_ms += open_ms < INTERLOCK_OPEN_MS;
    else
        open_ms = 0;
    if (TEMPERATURE_SENSOR != SENSOR_NONE)
        sense_temperature();
}
