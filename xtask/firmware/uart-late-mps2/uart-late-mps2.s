@ Counts for a while, and only then makes UART0 of mps2-an385 ready; prints `boot` and sends back every byte that it
@ receives. No timer runs.
@
@ What was sent in before must arrive all the same: nothing that this program does makes QEMU look at its socket.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/hard_fault.s"
    .include "parts/mps2-an385.s"
    .include "parts/print.s"

    function reset
    no_caller
    ldr     r4, =20000000           @ tens of milliseconds
1:  subs    r4, r4, #1
    bne     1b
    bl      uart_init
    adr     r0, boot_text
    bl      print_string
2:  bl      uart_get
    cmp     r0, #0
    blt     2b
    bl      uart_put
    b       2b
    end_function reset

    .ltorg

    .balign 4
boot_text:
    .asciz  "boot\n"
    .balign 4
