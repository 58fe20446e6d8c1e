@ The demo firmware's program: counts as fast as it can, prints five lines a second, echoes what it hears.
@
@ On the UART it prints `boot` once, then `tick 1`, `tick 2`, ... In between, every byte that is received is
@ sent back as it came. Good places to look at with a debugger:
@
@   counter      a word in RAM that never stops growing while the processor runs
@   tick_count   a word in RAM: the number of the last line
@   tick         is called for every line; a breakpoint here is met five times a second
@   echo         is called for every byte received, which is in r0
@   hard_fault   where the program stays for ever after any fault

    .equ SYST_CSR,   0xe000e010     @ SysTick: control and status
    .equ SYST_RVR,   0x04           @ from there: the value that the timer starts again from
    .equ SYST_CVR,   0x08           @ from there: the current value
    .equ TICKS_PER_SECOND, 5
    .equ LOOK_EVERY, 4096           @ counts between two looks at the devices, a power of two: a look costs an
                                    @ emulator far more than a count does

    variable counter
    variable tick_count

    function reset
    no_caller
    movs    r0, #0                  @ a reset leaves RAM as it was: begin at zero each time
    ldr     r1, =counter
    str     r0, [r1]
    ldr     r1, =tick_count
    str     r0, [r1]

    bl      uart_init
    adr     r0, boot_text
    bl      print_string

    @ SysTick counts down at the processor's clock and raises a flag at zero. Its interrupt stays off: main_loop
    @ looks at the flag.
    ldr     r0, =SYST_CSR
    ldr     r1, =CLOCK_HZ / TICKS_PER_SECOND - 1
    str     r1, [r0, #SYST_RVR]
    movs    r1, #0
    str     r1, [r0, #SYST_CVR]     @ any write sets the timer to zero and its flag to 'not yet'
    movs    r1, #5                  @ bit 0 = on, bit 2 = the processor's clock
    str     r1, [r0]
    b       main_loop
    end_function reset

    function main_loop
    no_caller
    ldr     r4, =counter
    ldr     r5, =SYST_CSR
    ldr     r6, =LOOK_EVERY - 1

1:  ldr     r0, [r4]                @ counter += 1, in memory at every round: a debugger sees it grow
    adds    r0, r0, #1
    str     r0, [r4]
    tst     r0, r6
    bne     1b

2:  bl      uart_get                @ every LOOK_EVERY counts: first whatever was received,
    cmp     r0, #0
    blt     3f
    bl      echo
    b       2b

3:  ldr     r0, [r5]                @ then the timer's flag, which this very read takes down
    tst     r0, #0x10000
    beq     1b
    bl      tick
    b       1b
    end_function main_loop

    function echo
    b       uart_put                @ a function of its own, so that a breakpoint has a place
    end_function echo

    function tick
    push_r4_lr
    ldr     r4, =tick_count
    ldr     r0, [r4]
    adds    r0, r0, #1
    str     r0, [r4]
    adr     r0, tick_text
    bl      print_string
    ldr     r0, [r4]
    bl      print_decimal
    adr     r0, newline_text
    bl      print_string
    pop     {r4, pc}
    end_function tick

    .ltorg

    .balign 4                       @ `adr` reaches whole words only
boot_text:
    .asciz  "boot\n"
    .balign 4
tick_text:
    .asciz  "tick "
    .balign 4
newline_text:
    .asciz  "\n"
