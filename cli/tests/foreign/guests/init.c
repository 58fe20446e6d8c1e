/* A first process that answers lines, without a library: build.sh builds it for each kernel. */
#if defined(__aarch64__)
#define CALL "svc 0"
#define NUMBER "x8"
#define FIRST "x0"
#define SECOND "x1"
#define THIRD "x2"
#elif defined(__arm__)
#define CALL "svc 0"
#define NUMBER "r7"
#define FIRST "r0"
#define SECOND "r1"
#define THIRD "r2"
#elif defined(__riscv)
#define CALL "ecall"
#define NUMBER "a7"
#define FIRST "a0"
#define SECOND "a1"
#define THIRD "a2"
#endif
#if defined(__arm__)
enum { READ = 3, WRITE = 4, REBOOT = 88 };
#else
enum { READ = 63, WRITE = 64, REBOOT = 142 };
#endif
static long call(long of, long a, long b, long c) {
    register long number __asm__(NUMBER) = of;
    register long first __asm__(FIRST) = a;
    register long second __asm__(SECOND) = b;
    register long third __asm__(THIRD) = c;
    __asm__ volatile(CALL : "+r"(first) : "r"(number), "r"(second), "r"(third) : "memory");
    return first;
}
static void say(const char *text) {
    long length = 0;
    while (text[length]) {
        length++;
    }
    call(WRITE, 1, (long)text, length);
}
void _start(void) {
    static char line[256];
    for (;;) {
        say("tiny# ");
        long length = call(READ, 0, (long)line, sizeof line - 1);
        if (length <= 0) {
            continue;
        }
        line[length] = 0;
        if (line[0] == 'o' && line[1] == 'f') {
            say("going down\n");
            call(REBOOT, (long)0xfee1dead, 672274793, 0x4321fedc);
        }
        say("you said ");
        say(line);
    }
}
