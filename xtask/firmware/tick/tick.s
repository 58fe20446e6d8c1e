@ The demo firmware for lm3s6965evb: counts as fast as it can, says so five times a second, echoes what it hears.
@
@ The program itself is in parts/ticking.s: board and program are put together here.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/lm3s6965evb.s"
    .include "parts/print.s"
    .include "parts/ticking.s"
    .include "parts/hard_fault.s"
