@ The board lm3s6965evb: the vector table, a UART to print on, and an end with a status.
@
@   print   sends the zero-terminated string that r0 points to over UART0
@   exit    ends the run with the status in r0, by semihosting; never returns
@
@ A program defines `main`, which is called after a reset; what it returns in r0 is the exit status.

    .syntax unified
    .cpu    cortex-m3
    .thumb

    .section .vectors, "a", %progbits
    .global vectors
vectors:
    .word   stack_top           @ the stack pointer at reset
    .word   reset
    .word   fault               @ NMI
    .word   fault               @ HardFault, which every other fault becomes

    .text
    .thumb_func
    .global reset
reset:
    bl      main
    .thumb_func
    .global exit
exit:
    push    {r0}                @ the second word of the block that r1 points to
    ldr     r0, =0x20026        @ ADP_Stopped_ApplicationExit
    push    {r0}
    mov     r1, sp
    movs    r0, #0x20           @ SYS_EXIT_EXTENDED
    bkpt    #0xab
1:  b       1b                  @ only without semihosting

    .thumb_func
fault:
    movs    r0, #1
    b       exit

    .thumb_func
    .global print
print:
    ldr     r1, =0x4000c000     @ UART0; QEMU's takes bytes without any setting-up
1:  ldrb    r2, [r0], #1
    cbz     r2, 2f
    str     r2, [r1]
    b       1b
2:  bx      lr
    .ltorg
