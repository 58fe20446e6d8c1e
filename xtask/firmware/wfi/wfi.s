@ Prints `boot`, then waits for an interrupt that never comes.
@
@ The processor sleeps and QEMU uses no CPU time, yet its run state is `running`: asleep and busy look the same. A
@ debugger finds it in `idle`; `wakeups` counts how often something woke it all the same.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/lm3s6965evb.s"
    .include "parts/print.s"

    variable wakeups

    function reset
    no_caller
    movs    r0, #0
    ldr     r1, =wakeups
    str     r0, [r1]
    bl      uart_init
    adr     r0, boot_text
    bl      print_string
    b       idle
    end_function reset

    function idle
    no_caller
    ldr     r4, =wakeups
1:  wfi
    ldr     r0, [r4]
    adds    r0, r0, #1
    str     r0, [r4]
    b       1b
    end_function idle

    .ltorg
    .balign 4
boot_text:
    .asciz  "boot\n"

    .balign 4
    .include "parts/hard_fault.s"
