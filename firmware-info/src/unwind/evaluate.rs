//! DWARF expressions, evaluated with the registers and memory of a frame.

use gimli::{Encoding, EvaluationResult, Expression, Location, Piece, Value};

use super::memory::Memory;
use super::registers::{self, Registers};
use super::{End, damaged};
use crate::dwarf::{Bytes, Debug};
use crate::image::Architecture;

/// An expression has a dozen operations; one may jump back.
const MAX_OPERATIONS: u32 = 10_000;

/// What an expression may ask for.
pub(crate) struct Context<'a, M> {
    pub(crate) architecture: Architecture,
    pub(crate) little_endian: bool,
    pub(crate) registers: &'a Registers,
    pub(crate) memory: &'a mut M,
    pub(crate) cfa: Option<u64>,
    pub(crate) frame_base: Option<u64>,
    /// For indexes into `.debug_addr`.
    pub(crate) unit: Option<(&'a Debug, &'a gimli::Unit<Bytes>)>,
}

impl<M: Memory> Context<'_, M> {
    /// The single address that an expression computes.
    pub(crate) fn address(
        &mut self,
        expression: Expression<Bytes>,
        encoding: Encoding,
        initial: Option<u64>,
    ) -> Result<u64, End> {
        let pieces = self.pieces(expression, encoding, initial)?;
        match pieces[..] {
            [
                Piece {
                    location: Location::Address { address },
                    ..
                },
            ] => Ok(address),
            _ => Err(End::CallFrames(crate::DebugInfoError::Damaged(
                "an expression is not an address".to_owned(),
            ))),
        }
    }

    pub(crate) fn pieces(
        &mut self,
        expression: Expression<Bytes>,
        encoding: Encoding,
        initial: Option<u64>,
    ) -> Result<Vec<Piece<Bytes>>, End> {
        let mut evaluation = expression.evaluation(encoding);
        evaluation.set_max_iterations(MAX_OPERATIONS);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut result = evaluation.evaluate().map_err(damaged)?;
        loop {
            result = match result {
                EvaluationResult::Complete => return Ok(evaluation.result()),
                EvaluationResult::RequiresMemory { address, size, .. } => {
                    let value = self.word(address, usize::from(size))?;
                    evaluation.resume_with_memory(Value::Generic(value))
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = self.register(register.0)?;
                    evaluation.resume_with_register(Value::Generic(value))
                }
                EvaluationResult::RequiresFrameBase => {
                    let base = self.frame_base.ok_or_else(|| unknown("the frame base"))?;
                    evaluation.resume_with_frame_base(base)
                }
                EvaluationResult::RequiresCallFrameCfa => {
                    let cfa = self.cfa.ok_or_else(|| unknown("the frame's address"))?;
                    evaluation.resume_with_call_frame_cfa(cfa)
                }
                EvaluationResult::RequiresRelocatedAddress(address) => {
                    evaluation.resume_with_relocated_address(address)
                }
                EvaluationResult::RequiresIndexedAddress { index, .. } => {
                    let (debug, unit) = self.unit.ok_or_else(|| unknown("the unit"))?;
                    let address = debug.dwarf.address(unit, index).map_err(damaged)?;
                    evaluation.resume_with_indexed_address(address)
                }
                // A value at the function's entry, thread-local storage, a typed operation.
                _ => return Err(unknown("a value that an expression needs")),
            }
            .map_err(damaged)?;
        }
    }

    pub(crate) fn register(&self, number: u16) -> Result<u64, End> {
        self.registers
            .get(number)
            .ok_or_else(|| unknown(&registers::name(self.architecture, number)))
    }

    pub(crate) fn word(&mut self, address: u64, size: usize) -> Result<u64, End> {
        read_word(self.memory, self.little_endian, address, size)
    }
}

pub(crate) fn read_word(
    memory: &mut impl Memory,
    little_endian: bool,
    address: u64,
    size: usize,
) -> Result<u64, End> {
    let mut bytes = [0; 8];
    let size = size.min(bytes.len());
    if !memory.read(address, &mut bytes[..size]) {
        return Err(End::Unreadable { address });
    }
    if little_endian {
        return Ok(u64::from_le_bytes(bytes));
    }
    bytes.rotate_right(8 - size);
    Ok(u64::from_be_bytes(bytes))
}

fn unknown(what: &str) -> End {
    End::UnknownRegister {
        register: what.to_owned(),
    }
}
