@ Prints by each of semihosting's ways, a line each, and exits with status 0.
@
@ SYS_WRITE0 goes to the semihosting console. The file `:tt`, which C libraries and Rust's `hprintln!` print to, is
@ another matter: see what QEMU makes of it in the project's notes on QEMU. It needs
@ `-semihosting-config enable=on,target=native`; without it the image stays in hard_fault.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/hard_fault.s"

    .equ SYS_OPEN,          0x01        @ r1 = three words: the name, the mode, the name's length; r0 = a handle
    .equ SYS_WRITE0,        0x04        @ r1 = a zero-terminated string
    .equ SYS_WRITE,         0x05        @ r1 = three words: the handle, where from, how many
    .equ SYS_EXIT_EXTENDED, 0x20        @ r1 = two words: the reason, and with this reason the exit status
    .equ APPLICATION_EXIT,  0x20026

    variable handle                     @ these three are what SYS_WRITE takes
    variable write_from
    variable write_count

    function reset
    no_caller
    movs    r0, #SYS_WRITE0
    adr     r1, first_text
    bkpt    #0xab
    adr     r0, open_output
    adr     r1, second_text
    bl      print_to
    adr     r0, open_error
    adr     r1, third_text
    bl      print_to
    movs    r0, #SYS_EXIT_EXTENDED
    adr     r1, exit_request
    bkpt    #0xab
1:  b       1b                          @ never reached: nobody comes back from the exit
    end_function reset

    @ Opens what r0 says and writes the seven bytes at r1 to it.
    function print_to
    ldr     r5, =handle
    str     r1, [r5, #4]
    movs    r1, #7
    str     r1, [r5, #8]
    mov     r1, r0
    movs    r0, #SYS_OPEN
    bkpt    #0xab
    str     r0, [r5]
    movs    r0, #SYS_WRITE
    mov     r1, r5
    bkpt    #0xab
    bx      lr
    end_function print_to

    .balign 4
open_output:
    .word   console_name, 4, 3          @ mode 4: to write, which is standard output
open_error:
    .word   console_name, 8, 3          @ mode 8: to append, which is standard error
exit_request:
    .word   APPLICATION_EXIT, 0
console_name:
    .asciz  ":tt"
    .balign 4
first_text:
    .asciz  "write0\n"
    .balign 4
second_text:
    .asciz  "output\n"
    .balign 4
third_text:
    .asciz  "error.\n"
    .balign 4
    .ltorg
