@ Prints `boot`, then locks the processor up: a fault, whose handler faults as well.
@
@ The real processor stops there and waits for a reset or a debugger. QEMU aborts (SIGABRT) with a register dump on
@ stderr and sends no event.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/lm3s6965evb.s"
    .include "parts/print.s"

    function reset
    no_caller
    bl      uart_init
    adr     r0, boot_text
    bl      print_string
    udf     #0                          @ an undefined instruction: the first fault
    end_function reset

    .balign 4
boot_text:
    .asciz  "boot\n"
    .balign 4

    function hard_fault
    udf     #1                          @ a fault inside HardFault has nowhere left to go
    end_function hard_fault
