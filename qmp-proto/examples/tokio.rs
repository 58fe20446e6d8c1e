//! tokio, by the codec alone: `cargo run -p qmp-proto --features tokio-codec --example tokio`.

use std::error::Error;

use futures_util::{SinkExt as _, StreamExt as _};
use qmp_proto::{
    Codec, Command as _, CommandId, Limits, ServerMessage,
    commands::{QmpCapabilities, QueryStatus, Quit, StatusInfo},
};
use tokio::{
    net::{UnixListener, UnixStream},
    process::Command,
};
use tokio_util::codec::{Decoder as _, Framed};

/// Starts a QEMU, asks for its status, and ends it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::temp_dir().join(format!("qmp-proto-tokio-{}", std::process::id()));
    let listener = UnixListener::bind(&socket)?;
    let mut qemu = Command::new("qemu-system-arm")
        .args(["-M", "none", "-nodefaults", "-display", "none", "-qmp"])
        .arg(format!("unix:{}", socket.display()))
        .spawn()?;
    talk(Codec::new(Limits::default()).framed(listener.accept().await?.0)).await?;
    println!("qemu ended: {}", qemu.wait().await?);
    Ok(std::fs::remove_file(socket)?)
}

/// A codec alone: the phases and the ids are the caller's here. `Connection` has them.
async fn talk(mut stream: Framed<UnixStream, Codec>) -> Result<(), Box<dyn Error>> {
    let [negotiation, status, quit] = [1, 2, 3].map(|number| CommandId::new(1, number));
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
                println!("it is {}", value.parse::<StatusInfo>()?.status);
                stream.send((quit, Quit)).await?;
            }
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
