@ The vector table of a Cortex-M3: the first thing in the image, read by the processor itself.
@
@ An image that includes this defines `reset` (where it starts) and `hard_fault` (where every fault ends: the
@ finer faults are off after a reset, and a fault that is off becomes a HardFault). Each entry has bit 0 set,
@ which says 'Thumb code'; the assembler sets it for every label that follows `.thumb_func`.

    .section .vectors, "a", %progbits
    .global vectors
    .type   vectors, %object
vectors:
    .word   stack_top           @  0  the stack pointer at reset (from link.ld)
    .word   reset               @  1  Reset
    .word   hard_fault          @  2  NMI
    .word   hard_fault          @  3  HardFault
    .word   hard_fault          @  4  MemManage
    .word   hard_fault          @  5  BusFault
    .word   hard_fault          @  6  UsageFault
    .word   0, 0, 0, 0          @  7  reserved
    .word   hard_fault          @ 11  SVCall
    .word   hard_fault          @ 12  DebugMonitor
    .word   0                   @ 13  reserved
    .word   hard_fault          @ 14  PendSV
    .word   hard_fault          @ 15  SysTick
    .size   vectors, . - vectors

    .text
