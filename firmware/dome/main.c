#include <avr/interrupt.h>
#include <avr/sleep.h>
#include <avr/wdt.h>
#include <stddef.h>

#include "commands.h"
#include "dome.h"
#include "hardware.h"
#include "pins.h"
#include "wiring.h"

volatile bool wake;
static uint8_t reset_flags __attribute__((section(".noinit")));

/* Before anything else: after a reset by the watchdog it still runs, at its shortest. A bootloader that has cleared
 * MCUSR leaves it in r2 (Optiboot). */
void first(void) __attribute__((naked, used, section(".init3")));
void first(void)
{
    uint8_t from_bootloader;
    __asm__ volatile("mov %0, r2" : "=r"(from_bootloader));
    uint8_t flags = MCUSR;
    MCUSR = 0;
    wdt_disable();
    if (!(flags & 0x0F) && !(from_bootloader & 0xF0))
        flags = from_bootloader;
    reset_flags = flags;
}

static char boot_cause(void)
{
    if (reset_flags & (1 << WDRF))
        return 'W';
    if (reset_flags & (1 << PORF))
        return 'P';
    if (reset_flags & (1 << BORF))
        return 'B';
    /* Also after a bootloader that tells nothing: it was DTR that started it. */
    return 'E';
}

static void send(const struct message *message)
{
    for (uint8_t i = 0; i < message->length; i++)
        serial_put(message->text[i]);
}

static void announce(void)
{
    struct message boot;
    message_begin(&boot, '!');
    message_text(&boot, "BOOT ");
    message_char(&boot, boot_cause());
    message_end(&boot);
    send(&boot);
}

/* Whether there was anything to do. Takes nothing in while an answer would find no room. */
static bool serve(void)
{
    uint8_t byte;
    struct request *request = NULL;
    struct message event;
    if (!serial_has_room(LINE_BYTES))
        return false;
    if (dome_event(&event)) {
        send(&event);
        return true;
    }
    if (!serial_get(&byte))
        return false;
    enum frame frame = frame_receive(byte, &request);
    if (frame != FRAME_NONE)
        send(commands_answer(frame, request));
    return true;
}

int main(void)
{
    lamps_init();
    wdt_enable(WDTO_120MS);
    wdt_reset();
    clock_init();
    sense_init();
    serial_init();
    set_sleep_mode(SLEEP_MODE_IDLE);
    sei();
    announce();
    uint32_t ticked_ms = clock_ms();
    for (;;) {
        wake = false;
        dome_poll();
        /* Only a clock that goes keeps the hardware watchdog quiet. */
        while (ticked_ms != clock_ms()) {
            ticked_ms++;
            wdt_reset();
            sense_tick();
            dome_tick();
        }
        if (serve())
            continue;
        cli();
        if (!wake) {
            sleep_enable();
            /* The instruction after this one runs before any interrupt, so that none is slept over. */
            sei();
            sleep_cpu();
            sleep_disable();
        }
        sei();
    }
}

#define ADDRESS(register) _SFR_MEM_ADDR(register)
#define OUTPUT(port, bit, timer, output) \
    {PIN_WIRING(port, bit), ADDRESS(TCCR##timer##A), ADDRESS(OCR##timer##output), COM##timer##output##1},

const struct wiring wiring __attribute__((used, section(".wiring"))) = {
    .chip = CHIP_NAME,
    .board = BOARD_NAME,
    .clock_hz = F_CPU,
    .channels = CHANNELS,
    .max_level = MAX_LEVEL,
    .trigger = PIN_WIRING(TRIGGER_PIN),
    .sync = PIN_WIRING(SYNC_PIN),
    .udr = ADDRESS(UDR0),
    .ucsra = ADDRESS(UCSR0A),
    .adc = TEMPERATURE_ADC,
    .room_mv = TEMPERATURE_SENSOR == SENSOR_NTC ? 2500 : TEMPERATURE_SENSOR == SENSOR_LM35 ? 250 : 0,
#if INTERLOCK
    .interlock = PIN_WIRING(INTERLOCK_PIN),
#endif
#ifdef SHIFT_CHIP
    .kind = SHIFT_CHIP == CHIP_HC595 ? WIRING_HC595 : WIRING_TLC5947,
    .lag = SHIFT_LAG,
    .data = PIN_WIRING(SHIFT_DATA),
    .clock = PIN_WIRING(SHIFT_CLOCK),
    .latch = PIN_WIRING(SHIFT_LATCH),
    .common = {PIN_WIRING(OC2B_PIN), ADDRESS(TCCR2A), ADDRESS(OCR2B), COM2B1},
#else
    .kind = WIRING_PWM,
    .lamp = {LIGHTS(OUTPUT)},
#endif
};
