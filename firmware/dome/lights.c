#include "lights.h"

#include <string.h>

#include "hardware.h"

/* The leaky bucket of a light: burning fills it by level, time empties it by the duty. It is full after MAX_ON_MS at
 * full level from cold. Unit: percent x level x ms. */
#define LEAK ((uint32_t)DUTY_PCT * MAX_LEVEL)
#define BUCKET ((100UL - DUTY_PCT) * MAX_LEVEL * MAX_ON_MS)
/* A light that has filled its bucket stays dark until an eighth is free, rather than flicker at the brim. */
#define RELIGHT (BUCKET - BUCKET / 8)
enum { LEAK_EVERY_MS = 16 };
/* A shot that was allowed beforehand may count two ticks more than it lasts, and miss the last leak. */
#define GRACE (LEAK_EVERY_MS * LEAK + 2 * 100UL * MAX_LEVEL)

static uint8_t level[CHANNELS];
static uint32_t on_ms[CHANNELS];
static uint32_t heat[CHANNELS];
static uint8_t lit;

static bool used_up(uint8_t channel)
{
    return DUTY_PCT < 100 && heat[channel] > RELIGHT;
}

static enum refusal refuse_beside(uint8_t channel, uint8_t new_level)
{
    if (!level[channel] && lit >= MAX_LIT)
        return TOO_MANY_LIT;
    if (COMMON_LEVEL)
        for (uint8_t i = 0; i < CHANNELS; i++)
            if (i != channel && level[i] && level[i] != new_level)
                return LEVELS_DIFFER;
    return ALLOWED;
}

enum refusal lights_refuse(uint8_t channel, uint8_t new_level)
{
    if (!new_level)
        return ALLOWED;
    if (!level[channel] && used_up(channel))
        return TOO_OFTEN;
    return refuse_beside(channel, new_level);
}

enum refusal lights_refuse_alone(uint8_t channel)
{
    return used_up(channel) ? TOO_OFTEN : ALLOWED;
}

enum refusal lights_refuse_for(uint8_t channel, uint8_t new_level, uint32_t ms)
{
    if (!new_level)
        return ALLOWED;
    uint32_t burned_ms = level[channel] ? on_ms[channel] : 0;
    if (burned_ms + ms > MAX_ON_MS)
        return TOO_LONG;
    uint32_t fill = new_level * 100UL;
    if (used_up(channel) ||
        (DUTY_PCT < 100 && fill > LEAK && ms > (BUCKET - heat[channel]) / (fill - LEAK)))
        return TOO_OFTEN;
    return refuse_beside(channel, new_level);
}

static void change(uint8_t channel, uint8_t new_level)
{
    if (!level[channel] && new_level) {
        lit++;
        on_ms[channel] = 0;
        /* A flash shorter than the tick counts as a whole one, or many of them would cost nothing. */
        heat[channel] += new_level * 100UL;
    }
    if (level[channel] && !new_level)
        lit--;
    level[channel] = new_level;
}

void lights_set(uint8_t channel, uint8_t new_level)
{
    change(channel, new_level);
    lamps_show(level);
}

void lights_show(const struct lighting *lighting)
{
    uint8_t wanted[CHANNELS];
    memset(wanted, 0, sizeof wanted);
    for (uint8_t i = 0; i < lighting->count; i++)
        wanted[lighting->light[i].channel] = lighting->light[i].level;
    for (uint8_t i = 0; i < CHANNELS; i++)
        change(i, wanted[i]);
    lamps_show(level);
}

void lights_dark(void)
{
    lamps_dark();
    for (uint8_t i = 0; i < CHANNELS; i++)
        change(i, 0);
    lamps_show(level);
}

uint8_t lights_lit(void)
{
    return lit;
}

bool lights_lit_beside(uint8_t channel)
{
    return lit > (level[channel] != 0);
}

uint8_t lights_tick(enum refusal *reason)
{
    static uint8_t leak_ms;
    uint8_t exceeded = NO_CHANNEL;
    if (lit)
        for (uint8_t i = 0; i < CHANNELS; i++) {
            if (!level[i])
                continue;
            if (DUTY_PCT < 100) {
                heat[i] += level[i] * 100UL;
                if (heat[i] > BUCKET + GRACE) {
                    exceeded = i;
                    *reason = TOO_OFTEN;
                }
            }
            /* One tick of grace: a shot of just MAX_ON_MS may see one more. */
            if (++on_ms[i] > MAX_ON_MS + 1UL) {
                exceeded = i;
                *reason = TOO_LONG;
            }
        }
    if (DUTY_PCT < 100 && ++leak_ms == LEAK_EVERY_MS) {
        leak_ms = 0;
        for (uint8_t i = 0; i < CHANNELS; i++)
            heat[i] -= heat[i] < LEAK_EVERY_MS * LEAK ? heat[i] : LEAK_EVERY_MS * LEAK;
    }
    return exceeded;
}
