    .text
    .thumb_func
    .global main
main:
    push    {r4, lr}
    movs    r0, #6
    movs    r1, #7
    bl      multiply
    subs    r0, r0, #42         @ 0 where all is well
    pop     {r4, pc}
