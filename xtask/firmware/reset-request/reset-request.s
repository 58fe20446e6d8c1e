@ Prints `boot`, then asks for a reset of the whole system: without end, unless QEMU is told otherwise.
@
@ By default QEMU resets the machine and sends a RESET event, thousands of times a second: a flood of events. With
@ `-no-reboot` it sends SHUTDOWN with the reason `guest-reset` and ends with status 0.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/lm3s6965evb.s"
    .include "parts/print.s"

    .equ AIRCR,       0xe000ed0c        @ application interrupt and reset control
    .equ SYSRESETREQ, 0x05fa0004        @ bit 2 asks; without the key 0x05fa in the upper half a write does nothing

    function reset
    no_caller
    bl      uart_init
    adr     r0, boot_text
    bl      print_string
    ldr     r0, =AIRCR
    ldr     r1, =SYSRESETREQ
    dsb                                 @ what was written before has to arrive first
    str     r1, [r0]
    dsb
1:  b       1b                          @ the reset may take a moment
    end_function reset

    .ltorg
    .balign 4
boot_text:
    .asciz  "boot\n"

    .balign 4
    .include "parts/hard_fault.s"
