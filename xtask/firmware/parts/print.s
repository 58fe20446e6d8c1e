@ Printing on the UART of whichever board was included before: a string, and a number.
@
@   print_string    sends the zero-terminated string that r0 points to
@   print_decimal   sends r0 as an unsigned decimal number without leading zeroes
@
@ Both change r0-r3 and nothing else.

    function print_string
    push_r4_lr
    mov     r4, r0
1:  ldrb    r0, [r4], #1
    cbz     r0, 2f
    bl      uart_put
    b       1b
2:  pop     {r4, pc}
    end_function print_string

    function print_decimal
    push_r4_lr
    sub     sp, sp, #16             @ room for ten digits and the zero that ends them
    .cfi_def_cfa_offset 24
    add     r4, sp, #15             @ the digits are made from the last to the first
    movs    r1, #0
    strb    r1, [r4]
    movs    r1, #10
1:  udiv    r2, r0, r1              @ r2 = what is left for the next round
    mls     r3, r2, r1, r0          @ r3 = r0 - 10 * r2, the digit
    adds    r3, r3, #'0'
    strb    r3, [r4, #-1]!
    mov     r0, r2
    cmp     r0, #0
    bne     1b
    mov     r0, r4
    bl      print_string
    add     sp, sp, #16
    .cfi_def_cfa_offset 8
    pop     {r4, pc}
    end_function print_decimal

    .ltorg
