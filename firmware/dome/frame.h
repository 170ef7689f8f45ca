/* Lines of the protocol: finding them in a stream of bytes, checking and composing them. Knows no command. */
#ifndef FRAME_H
#define FRAME_H

#include <stdbool.h>
#include <stdint.h>

enum { LINE_BYTES = 64 }; /* with the first character and the line feed */

enum frame {
    FRAME_NONE, /* not at the end of a line yet */
    FRAME_GOOD,
    FRAME_CRC,
    FRAME_LONG,
    FRAME_TORN,
};

/* What came between '>' and '*', ended by 0. */
struct request {
    char text[LINE_BYTES];
    uint16_t crc;
};

/* Takes the next byte of the stream; `request` is filled where FRAME_GOOD is returned, until the next call. */
enum frame frame_receive(uint8_t byte, struct request **request);

struct message {
    char text[LINE_BYTES];
    uint8_t length;
};

void message_begin(struct message *message, char first);
void message_char(struct message *message, char character);
void message_text(struct message *message, const char *text);
void message_number(struct message *message, int32_t number);
void message_end(struct message *message);

uint16_t crc_ccitt_false(const char *text, uint8_t length);

#endif
