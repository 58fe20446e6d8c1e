@ Prints the numbered lines `flood 0`, `flood 1`, ... on UART0 as fast as the board takes them, without end.
@
@ The numbers show whether a reader lost any. A reader that does not read stops the whole emulator, not the guest alone.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/lm3s6965evb.s"
    .include "parts/print.s"

    variable line_count

    function reset
    no_caller
    movs    r0, #0
    ldr     r4, =line_count
    str     r0, [r4]
    bl      uart_init

1:  adr     r0, flood_text
    bl      print_string
    ldr     r0, [r4]
    bl      print_decimal
    adr     r0, newline_text
    bl      print_string
    ldr     r0, [r4]
    adds    r0, r0, #1
    str     r0, [r4]
    b       1b
    end_function reset

    .ltorg
    .balign 4
flood_text:
    .asciz  "flood "
    .balign 4
newline_text:
    .asciz  "\n"

    .balign 4
    .include "parts/hard_fault.s"
