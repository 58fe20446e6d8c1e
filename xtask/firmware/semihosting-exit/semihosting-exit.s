@ Prints a line and ends with status 7, both by semihosting: requests to the debugger or emulator outside.
@
@ A request is `bkpt 0xab` with its number in r0 and its argument in r1; the answer comes back in r0. It needs
@ `-semihosting-config enable=on,target=native`. Without it the `bkpt` is a fault, and the image stays in hard_fault.

    .include "parts/macros.s"
    .include "parts/vectors.s"

    .equ SYS_WRITE0,        0x04        @ r1 = a zero-terminated string
    .equ SYS_EXIT_EXTENDED, 0x20        @ r1 = two words: the reason, and with this reason the exit status
    .equ APPLICATION_EXIT,  0x20026

    function reset
    no_caller
    movs    r0, #SYS_WRITE0
    adr     r1, hello_text
    bkpt    #0xab
    movs    r0, #SYS_EXIT_EXTENDED
    adr     r1, exit_request
    bkpt    #0xab
1:  b       1b                          @ never reached: nobody comes back from the exit
    end_function reset

    .balign 4
exit_request:
    .word   APPLICATION_EXIT, 7
hello_text:
    .asciz  "hello by semihosting\n"

    .balign 4
    .include "parts/hard_fault.s"
