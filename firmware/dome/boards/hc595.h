/* 24 lights on three 74HC595 in a chain, each output through a transistor (or three TPIC6B595, which have them).
 * Outputs know on and off only; the level is the duty of OE, one for all lights that burn together. */
#define BOARD_NAME "hc595"
#define SHIFT_CHIP CHIP_HC595
#ifndef MAX_LIT
#define MAX_LIT 8
#endif
