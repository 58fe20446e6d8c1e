//! `ctl`: one call to a session that `serve` holds.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::calls::{Call, CallError};
use crate::outcome::OWN_FAILURE;
use crate::reporter::{complain, print};
use crate::serve::{DEFAULT, check_folder, socket};

/// The server bounds each call itself, by less than this.
const DEADLINE: Duration = Duration::from_secs(120);

/// The longest answer, in bytes.
const ANSWER: u64 = 16 * 1024 * 1024;

/// The status of a call that was refused.
const REFUSED: u8 = 1;

/// The options that each call has.
const COMMON: &str = "Options of every call";

/// Steer a session that `qemu-controller serve` holds, one call at a time
///
/// The status is 0, 1 where the call was refused or could not be done, or 125 where there is no
/// session.
#[derive(Args, Debug)]
pub(crate) struct Ctl {
    /// The session's name
    #[arg(long, value_name = "NAME", default_value = DEFAULT, global = true,
          help_heading = COMMON)]
    session: String,
    /// The machine of the session: a fork's name, for example
    #[arg(long, value_name = "MACHINE", default_value = "main", global = true,
          help_heading = COMMON)]
    on: String,
    /// Print the answer as JSON, a refusal too
    #[arg(long, global = true, help_heading = COMMON)]
    json: bool,
    #[command(subcommand)]
    call: Call,
}

/// Asks, and shows the answer; the exit status.
pub(crate) fn ask(ctl: Ctl) -> u8 {
    let json = ctl.json;
    let answer = match answer(ctl) {
        Ok(answer) => answer,
        Err(words) => return complain(&words, OWN_FAILURE),
    };
    let error = answer.get("error").cloned();
    let (text, status) = match error.map(serde_json::from_value::<CallError>) {
        None if json => (answer["answer"].to_string(), 0),
        // Escaped by the server.
        None => (answer["words"].as_str().unwrap_or_default().to_owned(), 0),
        Some(_) if json => (answer.to_string(), REFUSED),
        Some(Ok(error)) => return complain(&error.message, REFUSED),
        Some(Err(error)) => return complain(&error.to_string(), OWN_FAILURE),
    };
    print(&format!("{text}\n"), status)
}

fn answer(mut ctl: Ctl) -> Result<Value, String> {
    if let Some(path) = ctl.call.path() {
        // The server works in another folder.
        *path = std::path::absolute(&*path).map_err(|error| error.to_string())?;
    }
    let mut request = serde_json::to_value(&ctl.call).map_err(|error| error.to_string())?;
    request["on"] = json!(ctl.on);
    let socket = socket(&ctl.session)?;
    let none = |error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => String::new(),
            _ => format!(" ({}: {error})", socket.display()),
        };
        format!(
            "no session {} is served{why}; `qemu-controller serve FIRMWARE` starts one",
            ctl.session
        )
    };
    let stream = UnixStream::connect(&socket).map_err(none)?;
    check_folder(&socket)?;
    let failed = |error: io::Error| format!("the session {} did not answer: {error}", ctl.session);
    stream.set_read_timeout(Some(DEADLINE)).map_err(failed)?;
    stream.set_write_timeout(Some(DEADLINE)).map_err(failed)?;
    writeln!(&stream, "{request}").map_err(failed)?;
    let mut line = String::new();
    let mut input = BufReader::new(&stream).take(ANSWER);
    input.read_line(&mut line).map_err(failed)?;
    serde_json::from_str(&line)
        .map_err(|_| format!("the session {} ended before it answered", ctl.session))
}
