@ Prints the same line to standard error by semihosting, without a pause and without an end.
@
@ It needs `-semihosting-config enable=on,target=native`; without it the image stays in hard_fault.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/hard_fault.s"

    .equ SYS_OPEN,  0x01                @ r1 = three words: the name, the mode, the name's length; r0 = a handle
    .equ SYS_WRITE, 0x05                @ r1 = three words: the handle, where from, how many

    variable handle                     @ these three are what SYS_WRITE takes
    variable write_from
    variable write_count

    function reset
    no_caller
    movs    r0, #SYS_OPEN
    adr     r1, open_error
    bkpt    #0xab
    ldr     r4, =handle
    str     r0, [r4]
    adr     r0, text
    str     r0, [r4, #4]
    movs    r0, #64
    str     r0, [r4, #8]
1:  movs    r0, #SYS_WRITE
    mov     r1, r4
    bkpt    #0xab
    b       1b
    end_function reset

    .balign 4
open_error:
    .word   console_name, 8, 3          @ mode 8: to append, which is standard error
console_name:
    .asciz  ":tt"
    .balign 4
text:
    .asciz  "flood flood flood flood flood flood flood flood flood flood 64.\n"
    .balign 4
    .ltorg
