/* The command table: a request's text to a call of dome.h, its outcome to the reply. Knows no register. */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "frame.h"

/* Takes a line that frame_receive has finished and composes its reply. */
const struct message *commands_answer(enum frame frame, const struct request *request);

#endif
