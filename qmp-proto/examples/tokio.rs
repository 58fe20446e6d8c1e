//! The same in tokio, through the feature: `cargo run -p qmp-proto --features tokio-codec --example
//! tokio`.

use std::error::Error;

use futures_util::{SinkExt as _, StreamExt as _};
use qmp_proto::{
    Codec, Command as _, CommandId, Limits, ServerMessage,
    commands::{QmpCapabilities, QueryStatus, Quit},
};
use tokio::{
    net::{UnixListener, UnixStream},
    process::Command,
};
use tokio_util::codec::{Decoder as _, Framed};

/// Starts a QEMU, asks for its status, and ends it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("qmp-proto-tokio-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    // QEMU connects to us: nobody has to wait until it listens.
    let listener = UnixListener::bind(folder.join("qmp"))?;
    let mut qemu = Command::new("qemu-system-arm")
        .args("-M none -nodefaults -display none -mon chardev=qmp,mode=control -chardev".split(' '))
        .arg(format!(
            "socket,id=qmp,path={}",
            folder.join("qmp").display()
        ))
        .spawn()?;
    talk(Codec::new(Limits::default()).framed(listener.accept().await?.0)).await?;
    println!("qemu ended: {}", qemu.wait().await?);
    Ok(std::fs::remove_dir_all(folder)?)
}

/// A codec alone: the phases and the ids are the caller's here. `Connection` has them.
async fn talk(mut stream: Framed<UnixStream, Codec>) -> Result<(), Box<dyn Error>> {
    let (negotiation, status, quit) = (
        CommandId::new(1, 1),
        CommandId::new(1, 2),
        CommandId::new(1, 3),
    );
    while let Some(message) = stream.next().await {
        match message? {
            ServerMessage::Greeting(greeting) => {
                println!("QEMU {}", greeting.version);
                stream
                    .send((negotiation, QmpCapabilities::NAME, ()))
                    .await?;
            }
            ServerMessage::Return { id, .. } if id == Some(negotiation.into()) => {
                stream.send((status, QueryStatus)).await?;
            }
            ServerMessage::Return { id, value } if id == Some(status.into()) => {
                println!(
                    "it is {}",
                    value.parse::<qmp_proto::commands::StatusInfo>()?.status
                );
                stream.send((quit, Quit)).await?;
            }
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
