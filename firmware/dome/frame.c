#include "frame.h"

#include <string.h>

enum { TAIL = 5 };                       /* *CCCC */
enum { TEXT_BYTES = LINE_BYTES - 1 - TAIL - 1 }; /* between first character and '*' */

static struct request request;
/* After '>' come at most 62 characters; one more may be the CR. */
static uint8_t received;
static enum { OUTSIDE, NOISE, INSIDE, SKIPPING } place;

uint16_t crc_ccitt_false(const char *text, uint8_t length)
{
    uint8_t high = 0xFF, low = 0xFF;
    while (length--) {
        /* The polynomial 0x1021, eight bits at a time without a table, and without shifts of words. */
        uint8_t byte = high ^ (uint8_t)*text++;
        byte ^= byte >> 4;
        high = low ^ (uint8_t)(byte << 4) ^ byte >> 3;
        low = byte ^ (uint8_t)(byte << 5);
    }
    return (uint16_t)(high << 8 | low);
}

static int8_t hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

static enum frame check(uint8_t length)
{
    if (length < TAIL || request.text[length - TAIL] != '*')
        return FRAME_TORN;
    uint16_t crc = 0;
    for (uint8_t i = length - TAIL + 1; i < length; i++) {
        int8_t digit = hex_value(request.text[i]);
        if (digit < 0)
            return FRAME_TORN;
        crc = (uint16_t)(crc << 4) | (uint8_t)digit;
    }
    if (crc != crc_ccitt_false(request.text, length - TAIL))
        return FRAME_CRC;
    /* The checksum is right and the line is none of ours all the same. A NUL would hide what follows it. */
    if (memchr(request.text, 0, length - TAIL))
        return FRAME_TORN;
    request.text[length - TAIL] = 0;
    request.crc = crc;
    if (length < TAIL + 2 || hex_value(request.text[0]) < 0 || hex_value(request.text[1]) < 0)
        return FRAME_TORN;
    return FRAME_GOOD;
}

enum frame frame_receive(uint8_t byte, struct request **good)
{
    if (byte == '>') {
        bool torn = place == INSIDE && received;
        place = INSIDE;
        received = 0;
        return torn ? FRAME_TORN : FRAME_NONE;
    }
    if (byte == '\n') {
        uint8_t ended = place;
        place = OUTSIDE;
        if (ended == NOISE)
            return FRAME_TORN;
        if (ended != INSIDE)
            return FRAME_NONE;
        uint8_t length = received;
        if (length && request.text[length - 1] == '\r')
            length--;
        *good = &request;
        return check(length);
    }
    switch (place) {
    case INSIDE:
        if (received >= LINE_BYTES - 2 + (byte == '\r')) {
            place = SKIPPING;
            return FRAME_LONG;
        }
        request.text[received++] = (char)byte;
        break;
    case OUTSIDE:
        /* An empty line is no line; a '>' that was lost on the way is worth telling. */
        if (byte != '\r')
            place = NOISE;
        break;
    case NOISE:
    case SKIPPING:
        break;
    }
    return FRAME_NONE;
}

void message_begin(struct message *message, char first)
{
    message->text[0] = first;
    message->length = 1;
}

void message_char(struct message *message, char character)
{
    if (message->length <= TEXT_BYTES)
        message->text[message->length++] = character;
}

void message_text(struct message *message, const char *text)
{
    while (*text)
        message_char(message, *text++);
}

/* By subtraction: a division takes the chip 40 us, and an edge of the camera waits for as many as there are digits. */
void message_number(struct message *message, int32_t number)
{
    static const uint32_t powers[] = {1000000000, 100000000, 10000000, 1000000, 100000, 10000, 1000, 100, 10, 1};
    uint32_t rest = (uint32_t)number;
    bool begun = false;
    if (number < 0) {
        message_char(message, '-');
        rest = -rest;
    }
    for (uint8_t i = 0; i < sizeof powers / sizeof *powers; i++) {
        char digit = '0';
        for (; rest >= powers[i]; rest -= powers[i])
            digit++;
        begun = begun || digit > '0' || powers[i] == 1;
        if (begun)
            message_char(message, digit);
    }
}

void message_end(struct message *message)
{
    uint16_t crc = crc_ccitt_false(message->text + 1, message->length - 1);
    message->text[message->length++] = '*';
    for (int8_t shift = 12; shift >= 0; shift -= 4)
        message->text[message->length++] = "0123456789ABCDEF"[(crc >> shift) & 15];
    message->text[message->length++] = '\n';
}
