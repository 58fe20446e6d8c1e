@ The board lm3s6965evb (Texas Instruments' LM3S6965): its clock and its first UART, an ARM PL011.
@
@   uart_init   makes UART0 ready
@   uart_put    sends the byte in r0
@   uart_get    r0 = the next byte received, or -1 when there is none
@
@ All three change r0-r3 and nothing else. Addresses and bits are from the LM3S6965 data sheet.

    .equ CLOCK_HZ,   12500000       @ the processor's clock after reset: QEMU's 200 MHz PLL divided by 16

    .equ RCGC1,      0x400fe104     @ system control: run-mode clock gates, bit 0 = UART0
    .equ UART0,      0x4000c000
    .equ UART_DR,    0x00           @ data
    .equ UART_FR,    0x18           @ flags: bit 4 = nothing received (RXFE), bit 5 = no room to send (TXFF)
    .equ UART_IBRD,  0x24           @ baud rate divisor, whole part
    .equ UART_FBRD,  0x28           @ baud rate divisor, in 64ths
    .equ UART_LCRH,  0x2c           @ line control
    .equ UART_CTL,   0x30           @ control

    function uart_init
    ldr     r0, =RCGC1              @ a peripheral without a clock answers nothing on the real chip
    ldr     r1, [r0]
    orr     r1, r1, #1
    str     r1, [r0]

    ldr     r0, =UART0
    movs    r1, #0
    str     r1, [r0, #UART_CTL]     @ off while it is set up
    movs    r1, #6                  @ 115200 baud: 12.5 MHz / (16 * 115200) = 6 + 50/64
    str     r1, [r0, #UART_IBRD]
    movs    r1, #50
    str     r1, [r0, #UART_FBRD]
    movs    r1, #0x70               @ eight bits, no parity, one stop bit, FIFOs on
    str     r1, [r0, #UART_LCRH]
    ldr     r1, =0x301              @ UART, transmitter and receiver on
    str     r1, [r0, #UART_CTL]
    bx      lr
    end_function uart_init

    function uart_put
    ldr     r1, =UART0
1:  ldr     r2, [r1, #UART_FR]
    tst     r2, #0x20               @ TXFF
    bne     1b
    str     r0, [r1, #UART_DR]
    bx      lr
    end_function uart_put

    function uart_get
    ldr     r1, =UART0
    ldr     r2, [r1, #UART_FR]
    tst     r2, #0x10               @ RXFE
    ite     eq
    ldrbeq  r0, [r1, #UART_DR]      @ the low eight bits: the others tell of line errors
    movne   r0, #-1
    bx      lr
    end_function uart_get

    .ltorg
