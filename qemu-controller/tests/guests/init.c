/* A first process that answers lines, without a library:
   aarch64-linux-gnu-gcc -Os -static -nostdlib -ffreestanding -fno-stack-protector -s init.c -o init */
static long call(long number, long a, long b, long c) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
static void say(const char *text) {
    long length = 0;
    while (text[length]) {
        length++;
    }
    call(64, 1, (long)text, length);
}
void _start(void) {
    static char line[256];
    for (;;) {
        say("tiny# ");
        long length = call(63, 0, (long)line, sizeof line - 1);
        if (length <= 0) {
            continue;
        }
        line[length] = 0;
        if (line[0] == 'o' && line[1] == 'f') {
            say("going down\n");
            call(142, (long)0xfee1dead, 672274793, 0x4321fedc);
        }
        say("you said ");
        say(line);
    }
}
