//! Statics and locals as their language writes them; what is expected was written from the fixtures'
//! sources.

use firmware_info::{Firmware, Local, Registers, ValueError};

use crate::firmware;
use crate::frames::stops_of;

/// The memory of a firmware that has not run yet.
fn statics(firmware: &Firmware) -> impl FnMut(u64, &mut [u8]) -> bool {
    |address, buffer| firmware.loaded(address, buffer)
}

#[test]
fn statics_of_c() {
    for name in ["c/o0", "c/o2", "c/os", "c/lto"] {
        let firmware = firmware(name);
        let value = |name: &str| {
            firmware
                .static_value(name, &mut statics(&firmware))
                .unwrap()
        };
        for (variable, wanted) in [
            ("big", "1311768467463790320"),
            ("negative", "-5"),
            ("ratio", "1.5"),
            ("precise", "-0.1"),
            ("enabled", "true"),
            ("letter", "113 'q'"),
            ("matrix", "{{1, 2, 3}, {4, 5, 6}}"),
        ] {
            // What main never reads the linker has dropped.
            if firmware.symbol(variable).is_ok() {
                assert_eq!(value(variable), wanted, "{name}: {variable}");
            }
        }
        let square = value("square");
        let (head, next) = square.rsplit_once(", next = ").unwrap();
        let (start, rest) = head.split_once(" \"").unwrap();
        assert!(start.starts_with("{name = 0x"), "{square}");
        assert_eq!(
            rest,
            "square\", colour = GREEN, corners = {{x = 1, y = 1}, {x = 2, y = 2}, {x = 3, y = 3}}, \
             tag = {whole = 7, bytes = {7, 0, 0, 0}}, filled = 0, layer = 2"
        );
        assert!(next.starts_with("0x2000"), "{next}");
        if firmware.symbol("steps").is_ok() {
            let steps = value("steps");
            assert!(
                steps.starts_with("{0x") && steps.contains(" <fibonacci>"),
                "{steps}"
            );
        }
    }
}

#[test]
fn statics_of_rust() {
    for name in ["rust/debug", "rust/release"] {
        let firmware = firmware(name);
        let value = |name: &str| firmware.static_value(name, &mut statics(&firmware));
        if firmware.symbol("SETTINGS").is_ok() {
            let settings = value("SETTINGS").unwrap();
            let (head, rest) = settings.split_once("nearest: Some(0x").unwrap();
            assert_eq!(head, "Settings { name: \"calls\", limit: Some(40), ");
            let (_, rest) = rest.split_once("), ").unwrap();
            assert_eq!(
                rest,
                "level: High, shapes: [Empty, Circle(2), Rectangle { width: 3, height: -4 }], \
                 origin: (-1, true), letter: 'é', scale: 0.25 }"
            );
        }
        if firmware.symbol("PRIMES").is_ok() {
            assert_eq!(value("PRIMES").unwrap(), "&[2, 3, 5, 7, 11]");
        }
        assert_eq!(value("PLAIN_COUNTER").unwrap(), "1099511627776");
        let error = value("PRIME").unwrap_err();
        assert!(matches!(error, ValueError::Name(_)), "{error}");
        let error = firmware.static_value("PLAIN_COUNTER", &mut |_, _: &mut [u8]| false);
        assert!(matches!(error, Err(ValueError::Unreadable { .. })));
    }
}

/// In each recorded stop with `hash` the innermost, what its caller gave it.
#[test]
fn locals_of_c() {
    let firmware = firmware("c/o0");
    let mut seen = 0;
    for (registers, mut memory) in stops_of("c/o0") {
        let backtrace = firmware.backtrace(&registers, &mut memory);
        for frame in &backtrace.frames {
            let locals = firmware.locals(frame, &mut memory).unwrap();
            let value = |name: &str| -> Option<&str> {
                let local = locals.iter().find(|local| local.name == name)?;
                local.value.as_deref()
            };
            match frame
                .functions
                .last()
                .and_then(|function| function.function.as_deref())
            {
                Some("main") => {
                    let n: u32 = value("n").unwrap().parse().unwrap();
                    assert!(n < 30 && value("total").is_some(), "{locals:?}");
                    seen += 1;
                }
                Some("round_of") => {
                    let local = locals.iter().find(|local| local.name == "n").unwrap();
                    assert!(local.is_parameter && local.value.is_some(), "{local}");
                }
                _ => {}
            }
        }
    }
    assert!(seen > 20);
    let nowhere = firmware.backtrace(&Registers::arm([0; 16]), &mut |_, _: &mut [u8]| false);
    assert_eq!(
        firmware
            .locals(&nowhere.frames[0], &mut |_, _: &mut [u8]| false)
            .unwrap(),
        [] as [Local; 0]
    );
}

/// A recursion counts its depth up, frame by frame, and the values are those of each frame's own
/// stack.
#[test]
fn locals_of_rust() {
    let firmware = firmware("rust/debug");
    let mut steps = 0;
    for (registers, mut memory) in stops_of("rust/debug") {
        let backtrace = firmware.backtrace(&registers, &mut memory);
        let mut inner = None;
        // The innermost may stand before it has put its parameters on the stack.
        for frame in backtrace.frames.iter().skip(1) {
            let function = frame.functions.last().and_then(|at| at.function.as_deref());
            if function != Some("calls::numbers::collatz") {
                inner = None;
                continue;
            }
            let locals = firmware.locals(frame, &mut memory).unwrap();
            let local = |name: &str| locals.iter().find(|local| local.name == name).unwrap();
            let depth = local("depth");
            assert!(
                depth.is_parameter && local("next").value.is_some(),
                "{locals:?}"
            );
            let depth: u32 = depth.value.as_ref().unwrap().parse().unwrap();
            assert!(
                inner.is_none_or(|inner| inner == depth + 1),
                "{inner:?} {depth}"
            );
            steps += u32::from(inner.is_some());
            inner = Some(depth);
        }
    }
    assert!(steps > 20, "{steps}");
}
