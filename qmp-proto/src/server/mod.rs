//! The server's side: commands in, answers and events out. For fakes of QEMU in tests, and for
//! programs that offer QMP themselves.

mod connection;
mod request;

pub use connection::{Connection, Phase};
pub use request::Request;
