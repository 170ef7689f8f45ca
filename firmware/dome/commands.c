#include "commands.h"

#include <stddef.h>
#include <string.h>

#include "board.h"
#include "dome.h"
#include "hardware.h"

enum { LONGEST_US = 600000000 };

static const struct request *executing;
static struct message reply;
/* The reply that is sent again when its request comes again. */
static struct message last_reply;
static uint16_t last_crc;
static char last_sequence[2];
static bool has_last;

static uint16_t crc_errors;
static uint16_t overflows;

static const struct outcome okay = {OK, NULL};
static const struct outcome bad = {ERROR_ARGUMENT, "argument"};

static void count(uint16_t *counter, uint16_t more)
{
    *counter = more > UINT16_MAX - *counter ? UINT16_MAX : *counter + more;
}

/* Takes " 123" off the text; false where there is no such number, or a greater one than `most`. */
static bool number(const char **text, uint32_t most, uint32_t *value)
{
    const char *at = *text;
    if (*at++ != ' ' || *at < '0' || *at > '9')
        return false;
    *value = 0;
    while (*at >= '0' && *at <= '9') {
        if (*value >= UINT32_MAX / 10)
            return false;
        *value = *value * 10 + (uint8_t)(*at++ - '0');
        if (*value > most)
            return false;
    }
    *text = at;
    return true;
}

static bool light(const char **text, struct light *into)
{
    uint32_t channel, level;
    if (!number(text, CHANNELS - 1, &channel) || !number(text, MAX_LEVEL, &level))
        return false;
    into->channel = channel;
    into->level = level;
    return true;
}

static void reply_number(int32_t value)
{
    message_char(&reply, ' ');
    message_number(&reply, value);
}

static void reply_word(const char *word)
{
    message_char(&reply, ' ');
    message_text(&reply, word);
}

static struct outcome command_id(const char *text)
{
    if (*text)
        return bad;
    reply_word(DEVICE_NAME);
    reply_word(DEVICE_FIRMWARE);
    reply_number(1);
    reply_number(CHANNELS);
    reply_number(MAX_LEVEL);
    reply_word(DEVICE_UID);
    reply_number(MAX_ON_MS);
    reply_number(MAX_LIT);
    reply_number(dome_watchdog_ms());
    reply_number(MAX_STEPS);
    reply_number(DUTY_PCT);
    return okay;
}

static struct outcome command_set(const char *text)
{
    struct light one;
    if (!light(&text, &one) || *text)
        return bad;
    return dome_set(one.channel, one.level);
}

static struct outcome command_off(const char *text)
{
    /* Whatever stands behind it, OFF is OFF. */
    (void)text;
    dome_dark();
    return okay;
}

static struct outcome command_fire(const char *text)
{
    struct light one;
    uint32_t settle_us, exposure_us;
    if (!light(&text, &one) || !number(&text, LONGEST_US, &settle_us) || !number(&text, LONGEST_US, &exposure_us) ||
        *text || !exposure_us)
        return bad;
    return dome_fire(executing->text, one.channel, one.level, settle_us, exposure_us);
}

static struct outcome command_seq(const char *text)
{
    uint32_t step, exposures;
    struct lighting lighting = {0};
    if (!number(&text, UINT8_MAX, &step) || !number(&text, UINT8_MAX, &exposures) || !exposures)
        return bad;
    while (*text) {
        struct light one;
        if (!light(&text, &one))
            return bad;
        for (uint8_t i = 0; i < lighting.count && i < MAX_LIT; i++)
            if (lighting.light[i].channel == one.channel)
                return bad;
        if (!one.level)
            continue;
        if (lighting.count < MAX_LIT)
            lighting.light[lighting.count] = one;
        lighting.count++;
    }
    return dome_store(step, exposures, &lighting);
}

static struct outcome command_arm(const char *text)
{
    uint32_t steps;
    if (!number(&text, UINT8_MAX, &steps) || *text)
        return bad;
    return dome_arm(steps);
}

static struct outcome command_stop(const char *text)
{
    if (*text)
        return bad;
    dome_dark();
    reply_number(dome_exposures());
    return okay;
}

static struct outcome command_hb(const char *text)
{
    return *text ? bad : okay;
}

static struct outcome command_wdt(const char *text)
{
    uint32_t ms;
    if (!number(&text, WATCHDOG_MAX_MS, &ms) || *text || ms < WATCHDOG_MIN_MS)
        return bad;
    dome_set_watchdog(ms);
    return okay;
}

static struct outcome command_stat(const char *text)
{
    if (*text)
        return bad;
    int16_t temperature_dc = sense_temperature_dc();
    message_char(&reply, ' ');
    message_char(&reply, dome_state());
    reply_number(lights_lit());
    if (temperature_dc == TEMPERATURE_NONE || temperature_dc == TEMPERATURE_BROKEN)
        reply_word("-");
    else
        reply_number(temperature_dc);
    reply_number(dome_exposures());
    reply_number(crc_errors);
    reply_number(overflows);
    reply_word(dome_cause());
    return okay;
}

static struct outcome command_clr(const char *text)
{
    if (*text)
        return bad;
    dome_clear();
    return okay;
}

static const struct {
    char name[5];
    struct outcome (*run)(const char *text);
} commands[] = {
    {"ID", command_id},     {"SET", command_set}, {"OFF", command_off},   {"FIRE", command_fire},
    {"SEQ", command_seq},   {"ARM", command_arm}, {"STOP", command_stop}, {"HB", command_hb},
    {"WDT", command_wdt},   {"STAT", command_stat}, {"CLR", command_clr},
};

static struct outcome execute(const struct request *request)
{
    executing = request;
    const char *text = request->text + 2;
    if (*text++ != ' ')
        return (struct outcome){ERROR_COMMAND, "command"};
    uint8_t length = strcspn(text, " ");
    for (uint8_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strlen(commands[i].name) == length && !memcmp(text, commands[i].name, length))
            return commands[i].run(text + length);
    return (struct outcome){ERROR_COMMAND, "command"};
}

static void begin(const char *sequence)
{
    message_begin(&reply, '<');
    message_char(&reply, sequence[0]);
    message_char(&reply, sequence[1]);
}

static const struct message *refuse(const char *sequence, enum error error, const char *word)
{
    begin(sequence);
    reply_word("ERR");
    reply_number(error);
    reply_word(word);
    message_end(&reply);
    return &reply;
}

const struct message *commands_answer(enum frame frame, const struct request *request)
{
    count(&overflows, serial_take_lost());
    switch (frame) {
    case FRAME_CRC:
        count(&crc_errors, 1);
        return refuse("??", ERROR_CRC, "crc");
    case FRAME_LONG:
        count(&overflows, 1);
        return refuse("??", ERROR_OVERFLOW, "overflow");
    case FRAME_GOOD:
        break;
    default:
        return refuse("??", ERROR_FRAME, "frame");
    }
    dome_keep_alive();
    if (has_last && request->crc == last_crc && !memcmp(request->text, last_sequence, 2))
        return &last_reply;
    begin(request->text);
    reply_word("OK");
    struct outcome outcome = execute(request);
    if (outcome.error)
        refuse(request->text, outcome.error, outcome.word);
    else
        message_end(&reply);
    last_reply = reply;
    last_crc = request->crc;
    memcpy(last_sequence, request->text, 2);
    has_last = true;
    return &last_reply;
}
