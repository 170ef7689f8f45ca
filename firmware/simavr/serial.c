/* The UART at the pace of the wire, and a pseudo-terminal at its other end. */
#define _GNU_SOURCE
#include <avr_uart.h>
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <termios.h>
#include <unistd.h>

#include "emulator.h"

enum { QUEUE = 1 << 16, LINE = 256 };

/* The chip stores two characters and holds a third; simavr would store 64. */
enum { CHIP_STORES = 3 };

static int master = -1, slave = -1, watch = -1;
static char link_path[512];
static int clients;
static bool wrong_baud;

static avr_uart_t *uart;
static avr_irq_t *uart_input;
static avr_io_read_t read_udr;
static void *read_udr_param;
static uint32_t cycles_per_byte;
static unsigned unread;

static uint8_t to_chip[QUEUE];
static unsigned to_chip_head, to_chip_tail;

static struct {
    uint8_t byte;
    avr_cycle_count_t done;
} from_chip[QUEUE];
static unsigned from_chip_head, from_chip_tail;

static char line[LINE];
static unsigned line_length, lines;

static void correct_byte_time(void)
{
    /* simavr 1.6 counts a parity bit that 8N1 does not have. */
    if (uart->cycles_per_byte != cycles_per_byte)
        uart->cycles_per_byte = cycles_per_byte = uart->cycles_per_byte * 10 / 11;
}

static uint8_t on_read(avr_t *avr, avr_io_addr_t address, void *param)
{
    (void)param;
    if (unread)
        unread--;
    return read_udr(avr, address, read_udr_param);
}

static avr_cycle_count_t next_byte(avr_t *avr, avr_cycle_count_t when, void *param)
{
    (void)param;
    if (to_chip_head == to_chip_tail)
        return 0;
    uint32_t byte = to_chip[to_chip_tail++ % QUEUE];
    correct_byte_time();
    if (wrong_baud)
        byte = UART_INPUT_FE | ((byte * 37 + 91) & 0xFF);
    if (!avr_regbit_get(avr, uart->rxen)) {
        /* A chip that has just been reset does not listen yet: what comes then is stored nowhere. */
    } else if (unread >= CHIP_STORES) {
        avr->data[emulator.wiring.ucsra] |= 1 << 3; /* DOR */
        report("\"overrun\": %u", byte & 0xFF);
    } else {
        unread++;
        avr_raise_irq(uart_input, byte);
    }
    return when + emulator.wiring.clock_hz * 10ULL / 115200;
}

void serial_send(const uint8_t *bytes, unsigned count)
{
    bool idle = avr_cycle_timer_status(emulator.avr, next_byte, NULL) == 0;
    while (count-- && to_chip_head - to_chip_tail < QUEUE)
        to_chip[to_chip_head++ % QUEUE] = *bytes++;
    if (idle)
        avr_cycle_timer_register(emulator.avr, 1, next_byte, NULL);
}

static void on_output(avr_irq_t *irq, uint32_t value, void *param)
{
    (void)irq, (void)param;
    correct_byte_time();
    avr_cycle_count_t begin = emulator.avr->cycle;
    if (from_chip_head != from_chip_tail && from_chip[(from_chip_head - 1) % QUEUE].done > begin)
        begin = from_chip[(from_chip_head - 1) % QUEUE].done;
    if (from_chip_head - from_chip_tail == QUEUE)
        from_chip_tail++;
    from_chip[from_chip_head % QUEUE].byte = value;
    from_chip[from_chip_head++ % QUEUE].done = begin + cycles_per_byte;
}

static void show_byte(uint8_t byte)
{
    if (byte != '\n' && line_length < LINE - 1) {
        line[line_length++] = byte >= ' ' && byte < 127 && byte != '"' && byte != '\\' ? (char)byte : '.';
        return;
    }
    line[line_length] = 0;
    lines++;
    line_length = 0;
    report("\"serial\": \"%s\"", line);
}

unsigned serial_lines(void)
{
    return lines;
}

void serial_attach(void)
{
    for (avr_io_t *io = emulator.avr->io_port; io; io = io->next)
        if (!strcmp(io->kind, "uart") && ((avr_uart_t *)io)->name == '0')
            uart = (avr_uart_t *)io;
    if (!uart) {
        fprintf(stderr, "%s has no UART 0\n", emulator.wiring.chip);
        exit(2);
    }
    uint32_t flags = 0;
    avr_ioctl(emulator.avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    uart_input = avr_io_getirq(emulator.avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
    avr_irq_register_notify(avr_io_getirq(emulator.avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), on_output, NULL);
    avr_io_addr_t io = AVR_DATA_TO_IO(emulator.wiring.udr);
    read_udr = emulator.avr->io[io].r.c;
    read_udr_param = emulator.avr->io[io].r.param;
    emulator.avr->io[io].r.c = on_read;
}

void serial_forget(void)
{
    to_chip_tail = to_chip_head;
    while (from_chip_head != from_chip_tail && from_chip[(from_chip_head - 1) % QUEUE].done > emulator.avr->cycle)
        from_chip_head--;
    line_length = 0;
    cycles_per_byte = 0;
    unread = 0;
}

const char *serial_plug(const char *link)
{
    static char path[128];
    if (link)
        snprintf(link_path, sizeof link_path, "%s", link);
    if (openpty(&master, &slave, path, NULL, NULL)) {
        perror("no pseudo-terminal");
        exit(2);
    }
    fcntl(master, F_SETFL, O_NONBLOCK);
    struct termios raw;
    tcgetattr(slave, &raw);
    cfmakeraw(&raw);
    cfsetspeed(&raw, B115200);
    tcsetattr(slave, TCSANOW, &raw);
    watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    inotify_add_watch(watch, path, IN_OPEN | IN_CLOSE);
    clients = 0;
    if (*link_path) {
        unlink(link_path);
        if (symlink(path, link_path))
            perror(link_path);
    }
    return path;
}

void serial_unplug(void)
{
    if (master < 0)
        return;
    if (*link_path)
        unlink(link_path);
    close(watch);
    close(slave);
    close(master);
    master = slave = watch = -1;
}

int serial_fds(int fds[2])
{
    if (master < 0)
        return 0;
    fds[0] = master;
    fds[1] = watch;
    return 2;
}

static void note_clients(void)
{
    char buffer[4096] __attribute__((aligned(8)));
    ssize_t size;
    while ((size = read(watch, buffer, sizeof buffer)) > 0)
        for (char *at = buffer; at < buffer + size;) {
            struct inotify_event *event = (struct inotify_event *)at;
            at += sizeof *event + event->len;
            if (event->mask & IN_OPEN) {
                /* What was said before went to nobody. */
                if (!clients++)
                    from_chip_tail = from_chip_head;
                report("\"port\": \"opened\"");
                if (emulator.reset_by_dtr)
                    reset_by_dtr();
            } else if (event->mask & IN_CLOSE) {
                clients -= clients > 0;
                report("\"port\": \"closed\"");
            }
        }
}

void serial_exchange(void)
{
    if (master >= 0) {
        note_clients();
        struct termios client;
        wrong_baud = clients && !tcgetattr(master, &client) && cfgetospeed(&client) != B115200;
        uint8_t bytes[4096];
        ssize_t size;
        while (to_chip_head - to_chip_tail <= QUEUE - sizeof bytes && (size = read(master, bytes, sizeof bytes)) > 0)
            /* A bootloader takes what is not for the program. */
            if (emulator.avr->cycle >= emulator.starts_at)
                serial_send(bytes, size);
    }
    uint8_t bytes[4096];
    unsigned count = 0;
    while (from_chip_tail != from_chip_head && from_chip[from_chip_tail % QUEUE].done <= emulator.avr->cycle &&
           count < sizeof bytes) {
        uint8_t byte = from_chip[from_chip_tail++ % QUEUE].byte;
        if (emulator.show_serial)
            show_byte(byte);
        bytes[count++] = wrong_baud ? (uint8_t)(byte * 37 + 91) : byte;
    }
    /* A wire without anybody at its end keeps nothing; neither does a terminal that is full. */
    if (master >= 0 && clients && count && write(master, bytes, count) < 0 && errno != EAGAIN)
        perror("pseudo-terminal");
}
