//! What the linker is told: where the memory is, and where the tests go.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("Cargo sets it");
    println!("cargo::rustc-link-search={folder}");
    println!("cargo::rustc-link-arg=-Tlink.x");
    println!("cargo::rustc-link-arg=-Tembedded-test.x");
    // Functions that were dropped are at 0 in the debug information otherwise, where the flash
    // begins: gdb then takes the vectors and the reset for one of them.
    println!("cargo::rustc-link-arg=-zdead-reloc-in-nonalloc=.debug_*=0xffffffff");
    println!("cargo::rustc-check-cfg=cfg(rust_analyzer)");
    println!("cargo::rerun-if-changed=memory.x");
}
