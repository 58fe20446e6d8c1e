@ Asks the host to run a command (SYS_SYSTEM), which makes the file `guest-was-here` in QEMU's folder, and exits with
@ status 0 where it ran, 3 where it did not.
@
@ A QEMU of version 7.2 with `-sandbox on,spawn=deny` is ended by SIGSYS, one of version 10.0 answers that it did not run.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/hard_fault.s"

    .equ SYS_SYSTEM,        0x12        @ r1 = two words: the command, its length; r0 = its status
    .equ SYS_EXIT_EXTENDED, 0x20        @ r1 = two words: the reason, and with this reason the exit status
    .equ APPLICATION_EXIT,  0x20026

    variable exit_reason                @ these two are what SYS_EXIT_EXTENDED takes
    variable exit_status

    function reset
    no_caller
    movs    r0, #SYS_SYSTEM
    adr     r1, command_request
    bkpt    #0xab
    cmp     r0, #0
    it      ne
    movne   r0, #3
    ldr     r1, =exit_reason
    str     r0, [r1, #4]
    ldr     r0, =APPLICATION_EXIT
    str     r0, [r1]
    movs    r0, #SYS_EXIT_EXTENDED
    bkpt    #0xab
1:  b       1b                          @ never reached: nobody comes back from the exit
    end_function reset

    .balign 4
command_request:
    .word   command, 17
command:
    .asciz  ": >guest-was-here"
    .balign 4
    .ltorg
