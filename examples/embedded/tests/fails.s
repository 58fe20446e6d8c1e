    .text
    .thumb_func
    .global main
main:
    push    {r4, lr}
    adr     r0, message
    bl      print
    movs    r0, #3
    pop     {r4, pc}

    .balign 4
message:
    .asciz  "two and two is five\n"
