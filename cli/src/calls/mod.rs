//! One set of calls that steers machines, for all who steer from outside this program (`mcp`, `ctl`):
//! named as the library's methods, each bounded in time and in size.

mod answer;
mod call;
mod error;
mod machine;
mod machines;
mod perform;
mod place;
mod printed;
mod source;
mod start;
mod tests;

pub(crate) use answer::Answer;
pub(crate) use call::{Call, Request, Start};
pub(crate) use error::{CallError, CallErrorKind};
pub(crate) use machine::Machine;
pub(crate) use machines::Machines;
pub(crate) use place::number;
pub(crate) use printed::Printed;
pub(crate) use source::of_uri;
pub(crate) use start::{Defaults, Policy, plain_name, record};
