//! Target descriptions: QEMU's own form, others', and hostile ones.

use gdb_remote::target::{ROOT, Target, TargetError, TargetReader};

/// Gives each document that is asked for, and puts them together.
fn read(documents: &[(&str, &str)]) -> Result<Target, TargetError> {
    let mut reader = TargetReader::new();
    while let Some(annex) = reader.next_annex().map(str::to_owned) {
        let content = documents
            .iter()
            .find(|(name, _)| *name == annex)
            .map(|(_, content)| *content);
        reader.add(
            &annex,
            content
                .ok_or(TargetError::Missing(annex.clone()))?
                .as_bytes(),
        )?;
    }
    reader.finish()
}

fn root(content: &str) -> Result<Target, TargetError> {
    read(&[(ROOT, content)])
}

const CORE: &str = "<?xml version=\"1.0\"?>\n<!-- free --><!DOCTYPE feature SYSTEM \"gdb-target.dtd\">
    <feature name=\"org.gnu.gdb.arm.m-profile\"><reg name=\"r0\" bitsize=\"32\"/>
    <reg name=\"pc\" bitsize=\"32\" type=\"code_ptr\"/><reg name=\"xpsr\" bitsize=\"32\" regnum=\"25\"/></feature>";
const SYSTEM: &str =
    "<feature name='org.qemu.gdb.arm.sys.regs'><reg name='VTOR' bitsize='64'></reg></feature>";

#[test]
fn includes_are_followed_in_their_place_and_registers_are_numbered() {
    let target = read(&[
        (
            ROOT,
            "<!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target><architecture>arm</architecture>\
            <xi:include href=\"core.xml\"/><xi:include href=\"sys.xml\"/></target>",
        ),
        ("core.xml", CORE),
        ("sys.xml", SYSTEM),
    ])
    .unwrap();
    assert_eq!(target.architecture.as_deref(), Some("arm"));
    let all: Vec<_> = target
        .registers
        .iter()
        .map(|r| (r.name.as_str(), r.number, r.bits))
        .collect();
    assert_eq!(
        all,
        [
            ("r0", 0, 32),
            ("pc", 1, 32),
            ("xpsr", 25, 32),
            ("VTOR", 26, 64)
        ]
    );
    let core: Vec<_> = target.core_registers().map(|r| r.name.as_str()).collect();
    assert_eq!(core, ["r0", "pc", "xpsr"]);
}

#[test]
fn documents_without_includes_architecture_or_registers() {
    assert_eq!(root("").unwrap(), Target::default());
    assert_eq!(root("<target/>").unwrap(), Target::default());
    assert_eq!(
        root("<target><architecture> riscv:rv32 </architecture></target>")
            .unwrap()
            .architecture
            .unwrap(),
        "riscv:rv32"
    );
    assert_eq!(
        root("<target><feature name=\"&lt;a&#x26;\"><reg name=\"r\" bitsize=\"8\"/></feature></target>")
            .unwrap()
            .registers[0]
            .feature,
        "<a&"
    );
}

#[test]
fn malformed_documents_are_refused_with_the_place() {
    for bad in [
        "<target>", // an end is missing: quick-xml's end of input, see below
        "<target></feature>",
        "<target><reg/></target>",
        "<reg name=\"r\" bitsize=\"x\"/>",
        "<reg name=\"r\" bitsize=\"-1\"/>",
        "<reg name=\"r\" bitsize=\"99999999999\"/>",
        "<reg name=\"&unknown;\" bitsize=\"1\"/>",
        "<xi:include/>",
        "<feature/>",
        "<",
        "<!--",
        "<![CDATA[",
    ] {
        let result = root(bad);
        if bad == "<target>" {
            // Truncated where no name is open to a closing tag: what was there is taken.
            assert_eq!(result, Ok(Target::default()));
        } else {
            assert!(
                matches!(result, Err(TargetError::Malformed { .. })),
                "{bad}: {result:?}"
            );
        }
    }
    let mut reader = TargetReader::new();
    assert!(matches!(
        reader.add(ROOT, b"a\xff"),
        Err(TargetError::Malformed { offset: 1, .. })
    ));
    assert_eq!(reader.next_annex(), Some(ROOT), "nothing was added");
    assert_eq!(reader.finish(), Err(TargetError::Missing(ROOT.to_owned())));
}

#[test]
fn hostile_documents_meet_a_limit() {
    let limit = |result: Result<Target, TargetError>| match result {
        Err(TargetError::Limit { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let include = |name: &str| format!("<xi:include href=\"{name}\"/>");
    // One that includes itself, and two that include each other.
    assert_eq!(limit(root(&include(ROOT))), "nested includes");
    assert_eq!(
        limit(read(&[(ROOT, &include("a")), ("a", &include(ROOT))])),
        "nested includes"
    );
    // 300 times 300 times one register, out of 30 KB.
    let many = include("a").repeat(300);
    let wide = read(&[
        (ROOT, &many),
        ("a", &include("b").repeat(300)),
        ("b", "<reg name=\"r\" bitsize=\"1\"/>"),
    ]);
    assert_eq!(limit(wide), "includes");
    let documents: String = (0..100)
        .map(|number| include(&number.to_string()))
        .collect();
    assert_eq!(limit(root(&documents)), "documents");
    assert_eq!(
        limit(root(&"<reg name=\"r\" bitsize=\"1\"/>".repeat(20_000))),
        "registers"
    );
    assert_eq!(limit(root(&" ".repeat(2 * 1024 * 1024))), "bytes");
    let wide = "<reg name=\"r\" bitsize=\"4294967295\"/>";
    assert_eq!(limit(root(wide)), "bits in a register");
    // Little text that is much when put together: a large document again and again, and a long name
    // for each register.
    let again = read(&[
        (ROOT, &include("a").repeat(255)),
        ("a", &"<a/>".repeat(250_000)),
    ]);
    assert_eq!(limit(again), "bytes with every include");
    let feature = format!("<feature name=\"{}\">", "x".repeat(500_000));
    let named = root(&(feature + &"<reg name=\"r\" bitsize=\"1\"/>".repeat(10)));
    assert_eq!(limit(named), "bytes with every include");
    // Depth costs nothing: no recursion follows elements.
    assert!(root(&"<a>".repeat(300_000)).is_ok());
}

#[test]
fn nothing_is_added_of_a_document_that_is_refused() {
    let mut reader = TargetReader::new();
    // Each include another document, in as many bytes as are allowed.
    let includes: String = (0..35_000)
        .map(|number| format!("<include href=\"{number:07}\"/>"))
        .collect();
    assert!(reader.check_size(includes.len()).is_ok());
    for bad in [includes.as_str(), "<xi:include href=\"a.xml\"/><reg/>"] {
        assert!(reader.add(ROOT, bad.as_bytes()).is_err());
        assert_eq!(reader.next_annex(), Some(ROOT));
        assert_eq!(reader.finish(), Err(TargetError::Missing(ROOT.to_owned())));
    }
    reader.add(ROOT, CORE.as_bytes()).unwrap();
    assert_eq!(reader.next_annex(), None);
    assert_eq!(reader.finish().unwrap().registers.len(), 3);
}
