/* The lights and what they can stand: how many at once, how long, how often. Knows no command and no register. */
#ifndef LIGHTS_H
#define LIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "board.h"

struct light {
    uint8_t channel;
    uint8_t level; /* never 0 in a step */
};

/* What burns together, the rest being dark. */
struct lighting {
    uint8_t count;
    struct light light[MAX_LIT];
};

enum refusal { ALLOWED, TOO_MANY_LIT, TOO_LONG, TOO_OFTEN, LEVELS_DIFFER };

enum { NO_CHANNEL = 255 };

/* Whether the light may burn beside those that do, until it is turned dark. */
enum refusal lights_refuse(uint8_t channel, uint8_t level);

/* Whether it may once all others are dark, be it lit or not. */
enum refusal lights_refuse_alone(uint8_t channel);

/* Whether it may for as long as this, which is known beforehand. */
enum refusal lights_refuse_for(uint8_t channel, uint8_t level, uint32_t ms);

void lights_set(uint8_t channel, uint8_t level);
void lights_show(const struct lighting *lighting);
void lights_dark(void);
uint8_t lights_lit(void);
bool lights_lit_beside(uint8_t channel);

/* Every millisecond. Returns a channel that has burned as long as it may, or NO_CHANNEL; `reason` says of what. */
uint8_t lights_tick(enum refusal *reason);

#endif
