@ Prints `boot` on UART0, and then sends back every byte that it receives, as it came and nothing else.
@
@ What is sent in must come back whole, however much it is and whatever bytes it has.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/hard_fault.s"
    .include "parts/lm3s6965evb.s"
    .include "parts/print.s"

    function reset
    no_caller
    bl      uart_init
    adr     r0, boot_text
    bl      print_string
1:  bl      uart_get
    cmp     r0, #0
    blt     1b
    bl      uart_put
    b       1b
    end_function reset

    .balign 4
boot_text:
    .asciz  "boot\n"
    .balign 4
