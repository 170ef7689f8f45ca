#include "dome.h"

#include <stddef.h>

#include "hardware.h"

struct step {
    uint8_t exposures;
    struct lighting lighting;
};

static enum { RESTING, FIRING, ARMED, TRIPPED } state;
static const char *cause = "-";

static uint16_t watchdog_ms = WATCHDOG_DEFAULT_MS;
static uint16_t silent_ms;

static char fired_as[2];
static uint8_t fired_channel;

static struct step steps[MAX_STEPS];
static uint8_t stored;
static uint8_t step;
static uint8_t left; /* exposures of this step still to come */
static uint16_t exposures;
static bool counting;

/* Events wait here until the serial line has room: the latest of each kind. */
enum { EVENT_WATCHDOG = 1, EVENT_DONE = 2, EVENT_MAX_ON = 4, EVENT_TEMPERATURE = 8, EVENT_END = 16, EVENT_LOCK = 32 };
static uint8_t events;
static char done_as[2];
static uint8_t max_on_channel;
static int16_t hot_dc;
static uint16_t end_exposures;

/* Too hot until it is this much cooler, in tenths of a degree. */
enum { COOLER_DC = 50 };

static const struct outcome okay = {OK, NULL};

static struct outcome limit(enum refusal refusal)
{
    static const char *const words[] = {
        [TOO_MANY_LIT] = "maxlit", [TOO_LONG] = "maxon", [TOO_OFTEN] = "duty", [LEVELS_DIFFER] = "level"};
    return refusal == ALLOWED ? okay : (struct outcome){ERROR_LIMIT, words[refusal]};
}

static bool too_hot(void)
{
    static bool hot;
    int16_t temperature_dc = sense_temperature_dc();
    hot = temperature_dc != TEMPERATURE_NONE && temperature_dc >= TEMPERATURE_MAX_DC - (hot ? COOLER_DC : 0);
    return hot;
}

static struct outcome unsafe(void)
{
    if (sense_interlock_open())
        return (struct outcome){ERROR_UNSAFE, "interlock"};
    if (too_hot())
        return (struct outcome){ERROR_UNSAFE, sense_temperature_dc() == TEMPERATURE_BROKEN ? "sensor" : "hot"};
    return okay;
}

static struct outcome occupied(void)
{
    if (state == TRIPPED)
        return (struct outcome){ERROR_TRIPPED, cause};
    if (state == FIRING || state == ARMED)
        return (struct outcome){ERROR_BUSY, state == FIRING ? "firing" : "armed"};
    return okay;
}

static void trip(const char *why, uint8_t event)
{
    dome_dark();
    state = TRIPPED;
    cause = why;
    events |= event;
}

void dome_keep_alive(void)
{
    silent_ms = 0;
}

struct outcome dome_set(uint8_t channel, uint8_t level)
{
    struct outcome outcome = occupied();
    if (!outcome.error && level)
        outcome = unsafe();
    if (!outcome.error)
        outcome = limit(lights_refuse(channel, level));
    if (!outcome.error)
        lights_set(channel, level);
    return outcome;
}

struct outcome dome_fire(const char sequence[2], uint8_t channel, uint8_t level, uint32_t settle_us,
                         uint32_t exposure_us)
{
    struct outcome outcome = occupied();
    if (!outcome.error && level)
        outcome = unsafe();
    if (!outcome.error)
        outcome = limit(lights_refuse_for(channel, level, (settle_us + exposure_us + 999) / 1000));
    if (outcome.error)
        return outcome;
    state = FIRING;
    fired_as[0] = sequence[0];
    fired_as[1] = sequence[1];
    fired_channel = channel;
    lights_set(channel, level);
    pulse_start(settle_us + LAMPS_LATE_US, exposure_us, !lights_lit_beside(channel));
    return okay;
}

struct outcome dome_store(uint8_t index, uint8_t count, const struct lighting *lighting)
{
    struct outcome outcome = occupied();
    if (outcome.error)
        return outcome;
    if (index > stored || index >= MAX_STEPS)
        return (struct outcome){ERROR_ARGUMENT, "step"};
    if (lighting->count > MAX_LIT)
        return limit(TOO_MANY_LIT);
    if (COMMON_LEVEL)
        for (uint8_t i = 1; i < lighting->count; i++)
            if (lighting->light[i].level != lighting->light[0].level)
                return limit(LEVELS_DIFFER);
    steps[index].exposures = count;
    steps[index].lighting = *lighting;
    if (index == 0 || index == stored)
        stored = index + 1;
    return okay;
}

static void show_step(void)
{
    left = steps[step].exposures;
    lights_show(&steps[step].lighting);
}

struct outcome dome_arm(uint8_t count)
{
    struct outcome outcome = occupied();
    if (outcome.error)
        return outcome;
    if (count == 0 || count != stored)
        return (struct outcome){ERROR_ARGUMENT, "steps"};
    outcome = unsafe();
    if (outcome.error)
        return outcome;
    /* What burns now gives way to the sequence. */
    for (uint8_t i = 0; i < count; i++)
        for (uint8_t j = 0; j < steps[i].lighting.count; j++) {
            enum refusal refusal = lights_refuse_alone(steps[i].lighting.light[j].channel);
            if (refusal != ALLOWED)
                return limit(refusal);
        }
    lights_dark();
    sense_take_edges();
    exposures = 0;
    counting = true;
    state = ARMED;
    step = 0;
    show_step();
    return okay;
}

void dome_dark(void)
{
    pulse_abort();
    lights_dark();
    if (state != TRIPPED)
        state = RESTING;
}

void dome_clear(void)
{
    if (state == TRIPPED)
        state = RESTING;
    cause = "-";
}

void dome_set_watchdog(uint16_t ms)
{
    watchdog_ms = ms;
}

char dome_state(void)
{
    switch (state) {
    case TRIPPED:
        return 'T';
    case FIRING:
        return 'F';
    case ARMED:
        return 'A';
    default:
        return lights_lit() ? 'L' : 'I';
    }
}

const char *dome_cause(void)
{
    return cause;
}

uint16_t dome_exposures(void)
{
    return exposures;
}

uint16_t dome_watchdog_ms(void)
{
    return watchdog_ms;
}

static void end_exposure(void)
{
    if (counting && exposures < UINT16_MAX)
        exposures++;
    if (state != ARMED || --left)
        return;
    if (++step < stored) {
        show_step();
        return;
    }
    lights_dark();
    state = RESTING;
    end_exposures = exposures;
    events |= EVENT_END;
}

void dome_poll(void)
{
    for (uint8_t edges = sense_take_edges(); edges; edges--)
        end_exposure();
    if (pulse_take_end() && state == FIRING) {
        lights_set(fired_channel, 0);
        state = RESTING;
        done_as[0] = fired_as[0];
        done_as[1] = fired_as[1];
        events |= EVENT_DONE;
    }
}

void dome_tick(void)
{
    enum refusal reason = ALLOWED;
    uint8_t channel = lights_tick(&reason);
    bool hot = too_hot();
    bool burning = state == ARMED || lights_lit();
    if (silent_ms < UINT16_MAX)
        silent_ms++;
    if (!burning && state != FIRING)
        return;
    /* A shot in the dark needs neither door nor cold. */
    if (channel != NO_CHANNEL) {
        max_on_channel = channel;
        trip(reason == TOO_LONG ? "maxon" : "duty", EVENT_MAX_ON);
    } else if (silent_ms > watchdog_ms) {
        trip("wdt", EVENT_WATCHDOG);
    } else if (burning && sense_interlock_open()) {
        trip("interlock", EVENT_LOCK);
    } else if (burning && hot) {
        hot_dc = sense_temperature_dc();
        trip("temp", EVENT_TEMPERATURE);
    }
}

bool dome_event(struct message *message)
{
    if (!events)
        return false;
    uint8_t event = events & -events;
    events &= ~event;
    message_begin(message, '!');
    switch (event) {
    case EVENT_WATCHDOG:
        message_text(message, "WDT");
        break;
    case EVENT_DONE:
        message_text(message, "DONE ");
        message_char(message, done_as[0]);
        message_char(message, done_as[1]);
        break;
    case EVENT_MAX_ON:
        message_text(message, "MAXON ");
        message_number(message, max_on_channel);
        break;
    case EVENT_TEMPERATURE:
        message_text(message, "TEMP ");
        if (hot_dc == TEMPERATURE_BROKEN)
            message_char(message, '-');
        else
            message_number(message, hot_dc);
        break;
    case EVENT_END:
        message_text(message, "END ");
        message_number(message, end_exposures);
        break;
    case EVENT_LOCK:
        message_text(message, "LOCK");
        break;
    }
    message_end(message);
    return true;
}
