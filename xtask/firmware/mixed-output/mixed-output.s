@ Prints by turns on its UART and by each of semihosting's ways to standard output, and exits with status 1.
@
@ Whoever reads the four ways apart cannot tell in which order they were printed. It needs
@ `-semihosting-config enable=on,target=native`; without it the image stays in hard_fault.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/hard_fault.s"
    .include "parts/lm3s6965evb.s"
    .include "parts/print.s"

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
    bl      uart_init
    movs    r0, #SYS_OPEN
    adr     r1, open_output
    bkpt    #0xab
    ldr     r4, =handle
    str     r0, [r4]
    adr     r0, file_text
    str     r0, [r4, #4]
    movs    r0, #7
    str     r0, [r4, #8]
    movs    r5, #20                     @ rounds
1:  adr     r0, uart_text
    bl      print_string
    movs    r0, #SYS_WRITE
    mov     r1, r4
    bkpt    #0xab
    movs    r0, #SYS_WRITE0
    adr     r1, console_text
    bkpt    #0xab
    subs    r5, r5, #1
    bne     1b
    movs    r0, #SYS_EXIT_EXTENDED
    adr     r1, exit_request
    bkpt    #0xab
2:  b       2b                          @ never reached: nobody comes back from the exit
    end_function reset

    .balign 4
open_output:
    .word   console_name, 4, 3          @ mode 4: to write, which is standard output
exit_request:
    .word   APPLICATION_EXIT, 1
console_name:
    .asciz  ":tt"
    .balign 4
uart_text:
    .asciz  "uart\n"
    .balign 4
file_text:
    .asciz  "output\n"
    .balign 4
console_text:
    .asciz  "write0\n"
    .balign 4
    .ltorg
