    .text
    .thumb_func
    .global main
main:
    push    {r4, lr}
    adr     r0, hello
    bl      print
    movs    r0, #0
    pop     {r4, pc}

    .balign 4
hello:
    .asciz  "hello from a Cortex-M3\n"
