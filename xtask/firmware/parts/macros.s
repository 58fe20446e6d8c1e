@ How every function and variable here is declared, so that debuggers and `addr2line` know its name, extent and kind.
@
@   function NAME ... end_function NAME     code; `bl NAME` calls it
@   variable NAME                           one word in RAM, which `reset` has to clear
@
@ The `.cfi_` lines tell a debugger how to find the caller (section .debug_frame, never loaded): without them GDB
@ shows no backtrace for code that lies as low in memory as ours does.

    .syntax unified
    .cpu    cortex-m3
    .thumb
    .cfi_sections .debug_frame

    .macro function name
    .thumb_func
    .global \name
    .type   \name, %function
    .cfi_startproc
\name:
    .endm

    .macro end_function name
    .cfi_endproc
    .size   \name, . - \name
    .endm

    @ `push {r4, lr}`, and the debugger is told where they are.
    .macro push_r4_lr
    push    {r4, lr}
    .cfi_def_cfa_offset 8
    .cfi_offset r4, -8
    .cfi_offset lr, -4
    .endm

    @ For a function that nobody called: a backtrace ends here.
    .macro no_caller
    .cfi_undefined lr
    .endm

    .macro variable name
    .bss
    .balign 4
    .global \name
    .type   \name, %object
    .size   \name, 4
\name:
    .space  4
    .text
    .endm
