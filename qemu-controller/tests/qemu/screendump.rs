//! A picture of a board's display.

use qemu_controller::{ScreendumpError, Session};

use crate::support::{config, start};

#[tokio::test]
async fn a_board_with_a_display_has_a_picture() {
    let session = start("tick").await;
    let png = session.screendump().await.unwrap();
    let (head, rest) = png.split_at(16);
    assert_eq!(head, b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR");
    let side = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap());
    assert_eq!(
        (side(0), side(4)),
        (512, 256),
        "the display's 128 by 64 pixels, magnified"
    );
    assert!(png.ends_with(b"IEND\xaeB`\x82"), "the file is whole");
    assert!(session.query_status().await.unwrap().running);
}

#[tokio::test]
async fn a_board_without_one_says_so() {
    let session = Session::start(config("tick-mps2").machine("mps2-an385"))
        .await
        .unwrap();
    let error = session.screendump().await.unwrap_err();
    assert!(matches!(error, ScreendumpError::NoDisplay), "{error}");
}
