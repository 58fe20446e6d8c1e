@ Prints `ready` by semihosting, then writes back what it reads from standard input (the file `:tt`), and exits with
@ status 0 at its end.
@
@ A read blocks QEMU whole until something comes. It needs `-semihosting-config enable=on,target=native`; without it
@ the image stays in hard_fault.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/hard_fault.s"

    .equ SYS_OPEN,          0x01        @ r1 = three words: the name, the mode, the name's length; r0 = a handle
    .equ SYS_WRITEC,        0x03        @ r1 = where the byte is
    .equ SYS_WRITE0,        0x04        @ r1 = a zero-terminated string
    .equ SYS_READ,          0x06        @ r1 = three words: the handle, where to, how many; r0 = how many did not come
    .equ SYS_EXIT_EXTENDED, 0x20        @ r1 = two words: the reason, and with this reason the exit status
    .equ APPLICATION_EXIT,  0x20026

    variable handle                     @ these three are what SYS_READ takes
    variable read_to
    variable read_count
    variable received

    function reset
    no_caller
    movs    r0, #SYS_OPEN
    adr     r1, open_input
    bkpt    #0xab
    ldr     r4, =handle
    str     r0, [r4]
    ldr     r5, =received
    str     r5, [r4, #4]
    movs    r0, #1
    str     r0, [r4, #8]
    movs    r0, #SYS_WRITE0
    adr     r1, ready_text
    bkpt    #0xab
1:  movs    r0, #SYS_READ
    mov     r1, r4
    bkpt    #0xab
    cbnz    r0, 2f                      @ the end
    movs    r0, #SYS_WRITEC
    mov     r1, r5
    bkpt    #0xab
    b       1b
2:  movs    r0, #SYS_EXIT_EXTENDED
    adr     r1, exit_request
    bkpt    #0xab
3:  b       3b                          @ never reached: nobody comes back from the exit
    end_function reset

    .balign 4
open_input:
    .word   console_name, 0, 3          @ mode 0: to read, which is standard input
exit_request:
    .word   APPLICATION_EXIT, 0
console_name:
    .asciz  ":tt"
    .balign 4
ready_text:
    .asciz  "ready\n"
    .balign 4
    .ltorg
