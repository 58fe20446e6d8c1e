@ The board mps2-an385 (ARM's MPS2 with the Cortex-M3 image AN385): its clock and its first UART, a CMSDK APB UART.
@
@   uart_init   makes UART0 ready
@   uart_put    sends the byte in r0
@   uart_get    r0 = the next byte received, or -1 when there is none
@
@ All three change r0-r3 and nothing else. Addresses and bits are from ARM's application note AN385 and the
@ Cortex-M System Design Kit's reference manual.

    .equ CLOCK_HZ,   25000000       @ the board's main clock

    .equ UART0,      0x40004000
    .equ UART_DATA,  0x00
    .equ UART_STATE, 0x04           @ bit 0 = no room to send, bit 1 = something received
    .equ UART_CTRL,  0x08           @ bit 0 = transmitter on, bit 1 = receiver on
    .equ UART_BAUD,  0x10           @ clock divisor, at least 16; QEMU's UART sends nothing while it is less

    function uart_init
    ldr     r0, =UART0
    movs    r1, #217                @ 115200 baud: 25 MHz / 217
    str     r1, [r0, #UART_BAUD]
    movs    r1, #3
    str     r1, [r0, #UART_CTRL]
    bx      lr
    end_function uart_init

    function uart_put
    ldr     r1, =UART0
1:  ldr     r2, [r1, #UART_STATE]
    tst     r2, #1
    bne     1b
    str     r0, [r1, #UART_DATA]
    bx      lr
    end_function uart_put

    function uart_get
    ldr     r1, =UART0
    ldr     r2, [r1, #UART_STATE]
    tst     r2, #2
    ite     ne
    ldrbne  r0, [r1, #UART_DATA]
    moveq   r0, #-1
    bx      lr
    end_function uart_get

    .ltorg
