/* The board around the chip: reads pins and registers as lamps, drives the inputs. */
#include <avr_adc.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emulator.h"

enum { MOST_CHANNELS = 96, MOST_BITS = MOST_CHANNELS * 12 };

static int shown[MOST_CHANNELS];
static int trigger = -1;

/* The chain of registers: place 0 is nearest to the data pin. */
static bool shifted[MOST_BITS], latched[MOST_BITS];
static bool wire_data, wire_clock, wire_latch;

static bool sync_high, interlock_closed = true;
static int adc_mv[16];
static long pulses_left;
static avr_cycle_count_t pulse_high, pulse_period;

bool board_read_wiring(const char *elf, struct wiring *wiring)
{
    bool found = false;
    FILE *file = fopen(elf, "rb");
    if (!file)
        return false;
    Elf32_Ehdr header;
    if (fread(&header, sizeof header, 1, file) == 1 && !memcmp(header.e_ident, ELFMAG, SELFMAG) &&
        header.e_shentsize == sizeof(Elf32_Shdr) && header.e_shstrndx < header.e_shnum) {
        Elf32_Shdr *sections = calloc(header.e_shnum, sizeof *sections);
        fseek(file, header.e_shoff, SEEK_SET);
        size_t count = fread(sections, sizeof *sections, header.e_shnum, file);
        for (size_t i = 0; i < count && count == header.e_shnum && !found; i++) {
            char name[sizeof ".wiring"] = "";
            fseek(file, sections[header.e_shstrndx].sh_offset + sections[i].sh_name, SEEK_SET);
            if (fread(name, 1, sizeof name, file) < sizeof name || memcmp(name, ".wiring", sizeof name))
                continue;
            fseek(file, sections[i].sh_offset, SEEK_SET);
            found = sections[i].sh_size == sizeof *wiring && fread(wiring, sizeof *wiring, 1, file) == 1 &&
                    wiring->channels <= (wiring->kind == WIRING_PWM ? (int)WIRING_LAMPS : (int)MOST_CHANNELS);
        }
        free(sections);
    }
    fclose(file);
    return found;
}

static avr_irq_t *pin_irq(const struct wiring_pin *pin)
{
    return avr_io_getirq(emulator.avr, AVR_IOCTL_IOPORT_GETIRQ(pin->port[0]), pin->bit);
}

static bool pin_is_high(const struct wiring_pin *pin)
{
    avr_ioport_state_t state;
    avr_ioctl(emulator.avr, AVR_IOCTL_IOPORT_GETSTATE(pin->port[0]), &state);
    /* A pin that is no output yet: a resistor holds it where the lamps are dark. */
    bool driven = state.ddr >> pin->bit & 1;
    return driven ? state.port >> pin->bit & 1 : emulator.wiring.kind != WIRING_PWM;
}

static uint8_t at(uint16_t address)
{
    return emulator.avr->data[address];
}

/* Phase-correct, 8 bits, undivided: 31 kHz, and the compare value is the time that the signal is high, of 255. */
static bool timer_is_well_set(const struct wiring_output *output)
{
    return (at(output->tccr) & 3) == 1 && (at(output->tccr + 1) & 0x1F) == 1;
}

/* Time during which the signal lights, of 255; -1 where a timer in another mode drives it. */
static int lit_by_output(const struct wiring_output *output)
{
    int max = emulator.wiring.max_level;
    bool driven_by_timer = at(output->tccr) >> output->com & 1;
    bool common = emulator.wiring.kind != WIRING_PWM;
    if (driven_by_timer && !timer_is_well_set(output))
        return -1;
    int high = !driven_by_timer ? max * pin_is_high(&output->pin)
               : at(output->tccr) >> (output->com - 1) & 1 ? max - at(output->ocr)
                                                           : at(output->ocr);
    int level = common ? max - high : high;
    if (common && level < max)
        level = level > emulator.wiring.lag ? level - emulator.wiring.lag : 0;
    return level;
}

static int lit_by_register(int channel)
{
    int bits = emulator.wiring.kind == WIRING_TLC5947 ? 12 : 1;
    int value = 0;
    for (int bit = bits; bit--;)
        value = value * 2 + latched[channel * bits + bit];
    return lit_by_output(&emulator.wiring.common) * value / ((1 << bits) - 1);
}

static void show_lamps(void)
{
    for (int i = 0; i < emulator.wiring.channels; i++) {
        int level =
            emulator.wiring.kind == WIRING_PWM ? lit_by_output(&emulator.wiring.lamp[i]) : lit_by_register(i);
        if (level != shown[i]) {
            shown[i] = level;
            report("\"light\": %d, \"level\": %d", i, level);
        }
    }
}

static void on_lamp_register(avr_irq_t *irq, uint32_t value, void *param)
{
    (void)irq, (void)value, (void)param;
    show_lamps();
}

static void on_trigger(avr_irq_t *irq, uint32_t value, void *param)
{
    (void)irq, (void)value, (void)param;
    avr_ioport_state_t state;
    avr_ioctl(emulator.avr, AVR_IOCTL_IOPORT_GETSTATE(emulator.wiring.trigger.port[0]), &state);
    int now = (state.ddr & state.port) >> emulator.wiring.trigger.bit & 1;
    if (now != trigger) {
        if (trigger >= 0 || now)
            report("\"trigger\": %d", now);
        trigger = now;
    }
}

static bool wire_changed(const struct wiring_pin *pin, bool *wire)
{
    bool now = pin_is_high(pin);
    if (now == *wire)
        return false;
    *wire = now;
    if (emulator.show_pins)
        report("\"pin\": \"%c%d\", \"value\": %d", pin->port[0], pin->bit, now);
    return true;
}

static void on_shift_wire(avr_irq_t *irq, uint32_t value, void *param)
{
    (void)irq, (void)value, (void)param;
    int bits = emulator.wiring.channels * (emulator.wiring.kind == WIRING_TLC5947 ? 12 : 1);
    wire_changed(&emulator.wiring.data, &wire_data);
    if (wire_changed(&emulator.wiring.clock, &wire_clock) && wire_clock) {
        memmove(shifted + 1, shifted, bits - 1);
        shifted[0] = wire_data;
    }
    if (wire_changed(&emulator.wiring.latch, &wire_latch) && wire_latch) {
        memcpy(latched, shifted, bits);
        show_lamps();
    }
}

static void watch_output(const struct wiring_output *output)
{
    avr_irq_register_notify(pin_irq(&output->pin), on_lamp_register, NULL);
    avr_irq_register_notify(avr_iomem_getirq(emulator.avr, output->tccr, NULL, AVR_IOMEM_IRQ_ALL),
                            on_lamp_register, NULL);
    avr_irq_register_notify(avr_iomem_getirq(emulator.avr, output->ocr, NULL, AVR_IOMEM_IRQ_ALL), on_lamp_register,
                            NULL);
}

void board_attach(void)
{
    struct wiring *wiring = &emulator.wiring;
    if (wiring->kind == WIRING_PWM)
        for (int i = 0; i < wiring->channels; i++)
            watch_output(&wiring->lamp[i]);
    else {
        /* What a register holds after power-on is anything. */
        memset(latched, 1, sizeof latched);
        watch_output(&wiring->common);
        avr_irq_register_notify(pin_irq(&wiring->data), on_shift_wire, NULL);
        avr_irq_register_notify(pin_irq(&wiring->clock), on_shift_wire, NULL);
        avr_irq_register_notify(pin_irq(&wiring->latch), on_shift_wire, NULL);
    }
    avr_irq_register_notify(pin_irq(&wiring->trigger), on_trigger, NULL);
    adc_mv[wiring->adc] = wiring->room_mv;
    for (int i = 0; i < 8; i++)
        board_set_adc(i, adc_mv[i]);
    board_restore_inputs();
}

static void drive(const struct wiring_pin *pin, bool high)
{
    if (!pin->port[0])
        return;
    /* Otherwise the emulator lets every write to the port's other pins pull this one up. */
    static avr_ioport_external_t external[26];
    avr_ioport_external_t *port = &external[pin->port[0] - 'A'];
    port->name = pin->port[0];
    port->mask |= 1 << pin->bit;
    port->value = (port->value & ~(1 << pin->bit)) | high << pin->bit;
    avr_ioctl(emulator.avr, AVR_IOCTL_IOPORT_SET_EXTERNAL(port->name), port);
    avr_raise_irq(pin_irq(pin), high);
}

void board_restore_inputs(void)
{
    drive(&emulator.wiring.sync, sync_high);
    drive(&emulator.wiring.interlock, !interlock_closed);
    /* The chip lets go of its outputs. */
    on_trigger(NULL, 0, NULL);
    show_lamps();
}

void board_set_sync(bool high)
{
    sync_high = high;
    drive(&emulator.wiring.sync, high);
}

static avr_cycle_count_t next_edge(avr_t *avr, avr_cycle_count_t when, void *param)
{
    (void)avr, (void)param;
    board_set_sync(!sync_high);
    if (sync_high)
        return when + pulse_high;
    return --pulses_left > 0 ? when + pulse_period - pulse_high : 0;
}

void board_pulse_sync(double high_us, long count, double period_us)
{
    double per_us = emulator.wiring.clock_hz / 1e6;
    pulse_high = (avr_cycle_count_t)(high_us * per_us);
    pulse_period = (avr_cycle_count_t)(period_us * per_us);
    pulses_left = count;
    sync_high = false;
    if (count > 0 && pulse_high > 0 && pulse_period > pulse_high)
        avr_cycle_timer_register(emulator.avr, 1, next_edge, NULL);
}

void board_set_interlock(bool closed)
{
    interlock_closed = closed;
    drive(&emulator.wiring.interlock, !closed);
}

void board_set_adc(int channel, int millivolts)
{
    if (channel < 0 || channel > 7)
        return;
    adc_mv[channel] = millivolts;
    avr_raise_irq(avr_io_getirq(emulator.avr, AVR_IOCTL_ADC_GETIRQ, ADC_IRQ_ADC0 + channel), millivolts);
}
