@ The demo firmware for mps2-an385: the same program as tick, with another clock and another UART.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/mps2-an385.s"
    .include "parts/print.s"
    .include "parts/ticking.s"
    .include "parts/hard_fault.s"
