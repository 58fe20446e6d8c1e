@ Prints `boot`, runs into a HardFault, prints `hard fault` from its handler and stays there for ever.
@
@ From outside it looks alive: QEMU's run state is `running` and the processor is busy. Only where it runs tells:
@ the program counter is in hard_fault, and xPSR ends in 3, the number of that exception.

    .include "parts/macros.s"
    .include "parts/vectors.s"
    .include "parts/lm3s6965evb.s"
    .include "parts/print.s"

    function reset
    no_caller
    bl      uart_init
    adr     r0, boot_text
    bl      print_string
    b       faulty
    end_function reset

    function faulty
    no_caller
    udf     #0                          @ an undefined instruction
    end_function faulty

    .balign 4
boot_text:
    .asciz  "boot\n"
    .balign 4

    function hard_fault                 @ lr still says what the processor has put on the stack: GDB's backtrace shows
    mov     r4, lr                      @ `faulty` as the caller
    .cfi_register lr, r4
    adr     r0, fault_text
    bl      print_string
1:  b       1b
    end_function hard_fault

    .balign 4
fault_text:
    .asciz  "hard fault\n"
