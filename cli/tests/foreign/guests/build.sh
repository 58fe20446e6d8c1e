#!/usr/bin/env bash
# Builds the first process with Debian 12's compilers: gcc-aarch64-linux-gnu, gcc-arm-none-eabi, gcc-riscv64-unknown-elf.
set -euo pipefail
cd "$(dirname "$0")"
build() { # NAME COMPILER FLAGS…
  "$2"gcc -Os -static -nostdlib -ffreestanding -fno-stack-protector -s -Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096 "${@:3}" init.c -o "init-$1"
}
build arm64 aarch64-linux-gnu-
build armhf arm-none-eabi- -march=armv7-a -marm
build riscv64 riscv64-unknown-elf- -march=rv64gc -mabi=lp64d
