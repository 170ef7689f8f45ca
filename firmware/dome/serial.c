/* USART 0 at 115200: both ways through rings, by interrupt. The receiver itself stores two characters. */
#include <avr/interrupt.h>
#include <avr/io.h>
#include <util/atomic.h>

#include "hardware.h"

#ifndef USART_RX_vect
#define USART_RX_vect USART0_RX_vect
#define USART_UDRE_vect USART0_UDRE_vect
#endif

/* Sizes divide 256, so that 8-bit counters may run over. */
enum { RING = 128 };

static volatile uint8_t received[RING], received_head, received_tail;
static volatile uint8_t sending[RING], sending_head, sending_tail;
static volatile uint16_t lost;

void serial_init(void)
{
    /* 16 MHz / 8 / 17 is 2.1 % fast, as on every Arduino at this rate, and within what 8N1 bears. */
    UCSR0A = 1 << U2X0;
    UCSR0C = 1 << UCSZ01 | 1 << UCSZ00;
    UBRR0 = (F_CPU / 4 / 115200 - 1) / 2;
    UCSR0B = 1 << RXEN0 | 1 << TXEN0 | 1 << RXCIE0;
}

ISR(USART_RX_vect)
{
    uint8_t status = UCSR0A;
    uint8_t byte = UDR0;
    if (status & (1 << DOR0))
        lost++;
    if ((uint8_t)(received_head - received_tail) == RING)
        lost++;
    else
        received[received_head++ % RING] = byte;
    wake = true;
}

ISR(USART_UDRE_vect)
{
    if (sending_head == sending_tail)
        UCSR0B &= ~(1 << UDRIE0);
    else
        UDR0 = sending[sending_tail++ % RING];
}

bool serial_get(uint8_t *byte)
{
    if (received_head == received_tail)
        return false;
    *byte = received[received_tail % RING];
    received_tail++;
    return true;
}

bool serial_has_room(uint8_t bytes)
{
    return RING - (uint8_t)(sending_head - sending_tail) >= bytes;
}

void serial_put(uint8_t byte)
{
    sending[sending_head % RING] = byte;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        sending_head++;
        UCSR0B |= 1 << UDRIE0;
    }
}

uint16_t serial_take_lost(void)
{
    uint16_t taken;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        taken = lost;
        lost = 0;
    }
    return taken;
}
