@ The code under test: r0 = r0 * r1, by adding.

    .text
    .thumb_func
    .global multiply
multiply:
    movs    r2, #0
1:  cbz     r1, 2f
    adds    r2, r2, r0
    subs    r1, r1, #1
    b       1b
2:  mov     r0, r2
    bx      lr
