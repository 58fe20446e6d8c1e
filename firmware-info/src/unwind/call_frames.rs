//! Call frame information: which rules hold at an address, and the caller's registers by them.

use std::collections::HashMap;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, DebugFrame, DebugFrameOffset, EhFrame, EhFrameOffset,
    Encoding, RegisterRule, SectionId, UnwindContext, UnwindSection, UnwindTableRow,
};

use super::evaluate::{Context, read_word};
use super::memory::Memory;
use super::registers::{Registers, is_scratch, link, stack_pointer};
use super::{End, Frame, Guess, Step, cortex_m, damaged};
use crate::Firmware;
use crate::dwarf::{Bytes, LiveCode, Result as DwarfResult, section_data};
use crate::error::DebugInfoError;
use crate::image::{Architecture, Image};

/// An entry of more bytes is a lie: each instruction is gone through for each frame.
const MAX_INSTRUCTIONS: usize = 1 << 16;

/// Where the entry of each piece of code is.
pub(crate) struct CallFrames {
    debug_frame: DebugFrame<Bytes>,
    eh_frame: EhFrame<Bytes>,
    bases: BaseAddresses,
    /// In the order of their addresses.
    entries: Vec<Entry>,
}

struct Entry {
    begin: u64,
    end: u64,
    section: FrameSection,
    offset: usize,
}

#[derive(Clone, Copy)]
enum FrameSection {
    Debug,
    Eh,
}

impl CallFrames {
    pub(crate) fn load(image: &Image, live: &LiveCode<'_>) -> DwarfResult<Self> {
        let address = |name: &str| image.section(name).map_or(0, |section| section.address);
        let size = if image.is_64 { 8 } else { 4 };
        let mut debug_frame: DebugFrame<Bytes> = section_data(image, SectionId::DebugFrame)?.into();
        debug_frame.set_address_size(size);
        let mut eh_frame: EhFrame<Bytes> = section_data(image, SectionId::EhFrame)?.into();
        eh_frame.set_address_size(size);
        let bases = BaseAddresses::default()
            .set_eh_frame(address(".eh_frame"))
            .set_eh_frame_hdr(address(".eh_frame_hdr"))
            .set_text(address(".text"))
            .set_got(address(".got"));
        let mut entries = Vec::new();
        index(
            &debug_frame,
            &bases,
            FrameSection::Debug,
            live,
            &mut entries,
        )?;
        index(&eh_frame, &bases, FrameSection::Eh, live, &mut entries)?;
        entries.sort_by_key(|entry| (entry.begin, entry.end));
        Ok(Self {
            debug_frame,
            eh_frame,
            bases,
            entries,
        })
    }

    fn entry(&self, address: u64) -> Option<&Entry> {
        let after = self.entries.partition_point(|entry| entry.begin <= address);
        let near = self.entries[..after].iter().rev().take(16);
        near.into_iter().find(|entry| address < entry.end)
    }

    /// Whether there are rules for an address.
    pub(crate) fn covers(&self, address: u64) -> bool {
        self.entry(address).is_some()
    }
}

fn index<S>(
    section: &S,
    bases: &BaseAddresses,
    kind: FrameSection,
    live: &LiveCode<'_>,
    entries: &mut Vec<Entry>,
) -> DwarfResult<()>
where
    S: UnwindSection<Bytes>,
    S::Offset: std::hash::Hash,
{
    let mut common = HashMap::new();
    let mut all = section.entries(bases);
    while let Some(entry) = all.next()? {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        // One that is damaged costs its own function only.
        let parsed = partial.parse(|section, bases, offset| {
            if let Some(known) = common.get(&offset) {
                return Clone::clone(known);
            }
            let cie = section.cie_from_offset(bases, offset);
            common.insert(offset, cie.clone());
            cie
        });
        let Ok(fde) = parsed else {
            continue;
        };
        let (begin, end) = (fde.initial_address(), fde.end_address());
        if begin < end && live.function(begin) {
            entries.push(Entry {
                begin,
                end,
                section: kind,
                offset: fde.offset(),
            });
        }
    }
    Ok(())
}

/// What the rules say of one frame.
struct Unwound {
    registers: Registers,
    cfa: u64,
    /// `None` where the rules say that nothing called this function.
    return_address: Option<u64>,
    /// The return address is still where the call put it: it was not saved.
    in_link_register: bool,
}

impl Firmware {
    pub(super) fn step(&self, frame: &mut Frame, memory: &mut impl Memory) -> Result<Step, End> {
        let architecture = self.architecture();
        if architecture == Architecture::Other {
            return Err(End::Unsupported);
        }
        let frames = match self.call_frames() {
            Ok(frames) => frames,
            // An exception's frame needs none.
            Err(error) => {
                let step = self.without_rules(frame, memory);
                return step.map_err(|_| End::CallFrames(error));
            }
        };
        let Some(entry) = frames.entry(frame.lookup()) else {
            return self.without_rules(frame, memory);
        };
        let unwound = match entry.section {
            FrameSection::Debug => {
                let offset = DebugFrameOffset(entry.offset);
                self.unwind(&frames.debug_frame, offset, &frames.bases, frame, memory)?
            }
            FrameSection::Eh => {
                let offset = EhFrameOffset(entry.offset);
                self.unwind(&frames.eh_frame, offset, &frames.bases, frame, memory)?
            }
        };
        frame.cfa = Some(unwound.cfa);
        // A frame that called another one has lost what the link register was.
        if unwound.in_link_register && !frame.is_exact() {
            return self.lost(&unwound.registers, unwound.cfa, memory);
        }
        let address = unwound.return_address.ok_or(End::Outermost)?;
        self.return_to(frame, unwound.registers, address, unwound.cfa, memory)
    }

    /// The caller at a return address, or what an exception interrupted.
    fn return_to(
        &self,
        frame: &Frame,
        mut registers: Registers,
        address: u64,
        cfa: u64,
        memory: &mut impl Memory,
    ) -> Result<Step, End> {
        let architecture = self.architecture();
        if architecture == Architecture::Arm && cortex_m::is_exc_return(address) {
            return cortex_m::exception(self, &registers, address, cfa, memory);
        }
        let is_after_reset =
            architecture == Architecture::Arm && address == cortex_m::LR_AFTER_RESET;
        if address == 0 || is_after_reset {
            return Err(End::Outermost);
        }
        registers.set_pc(architecture, address);
        let sp = stack_pointer(architecture);
        if registers.pc() == frame.pc && registers.get(sp) == frame.registers.get(sp) {
            return Err(End::Repeats);
        }
        let call = registers.pc().saturating_sub(1);
        let has_rules = self.call_frames().is_ok_and(|frames| frames.covers(call));
        if !has_rules && !self.image.is_code(call) {
            return Err(End::NotCode { address });
        }
        Ok(Step {
            registers,
            interrupted_by: None,
            guess: None,
        })
    }

    /// The innermost frame, or an interrupted one, may be of a function that calls nobody and saves
    /// nothing.
    fn without_rules(&self, frame: &Frame, memory: &mut impl Memory) -> Result<Step, End> {
        let architecture = self.architecture();
        let none = End::NoCallFrames { pc: frame.pc };
        let stack = frame.registers.get(stack_pointer(architecture));
        let address = frame.registers.get(link(architecture));
        let (true, Some(address), Some(stack)) = (frame.is_exact(), address, stack) else {
            return match stack {
                Some(stack) => self.lost(&frame.registers, stack, memory).map_err(|_| none),
                None => Err(none),
            };
        };
        let step = self.return_to(frame, frame.registers.clone(), address, stack, memory);
        let mut step = step.map_err(|_| none)?;
        if step.interrupted_by.is_none() && step.guess.is_none() {
            step.guess = Some(Guess::LinkRegister);
        }
        Ok(step)
    }

    /// The return address is lost. Within an exception's handler the exception's frame can be
    /// looked for.
    fn lost(&self, registers: &Registers, cfa: u64, memory: &mut impl Memory) -> Result<Step, End> {
        if self.architecture() != Architecture::Arm {
            return Err(End::ReturnAddressLost);
        }
        cortex_m::guess(self, registers, cfa, memory).ok_or(End::ReturnAddressLost)
    }

    fn unwind<S: UnwindSection<Bytes>>(
        &self,
        section: &S,
        offset: S::Offset,
        bases: &BaseAddresses,
        frame: &Frame,
        memory: &mut impl Memory,
    ) -> Result<Unwound, End> {
        let fde = section.fde_from_offset(bases, offset, S::cie_from_offset);
        let fde = fde.map_err(damaged)?;
        if fde.entry_len().saturating_add(fde.cie().entry_len()) > MAX_INSTRUCTIONS {
            return Err(End::CallFrames(DebugInfoError::Limit(
                "an entry is too long",
            )));
        }
        let mut context = UnwindContext::new();
        let row = fde
            .unwind_info_for_address(section, bases, &mut context, frame.lookup())
            .map_err(damaged)?;
        Rules {
            firmware: self,
            section,
            row,
            encoding: fde.cie().encoding(),
            frame,
            memory,
        }
        .apply(fde.cie().return_address_register().0)
    }
}

/// The rules of one row, and what they are applied to.
struct Rules<'a, S, M> {
    firmware: &'a Firmware,
    section: &'a S,
    row: &'a UnwindTableRow<usize>,
    encoding: Encoding,
    frame: &'a Frame,
    memory: &'a mut M,
}

impl<S: UnwindSection<Bytes>, M: Memory> Rules<'_, S, M> {
    fn apply(mut self, return_register: u16) -> Result<Unwound, End> {
        let architecture = self.firmware.architecture();
        let cfa = match self.row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                let base = self.context(None).register(register.0)?;
                self.wrap(base.wrapping_add_signed(*offset))
            }
            CfaRule::Expression(expression) => {
                let expression = expression.get(self.section).map_err(damaged)?;
                let encoding = self.encoding;
                self.context(None).address(expression, encoding, None)?
            }
        };
        let mut registers = self.frame.registers.clone();
        for number in 0..64 {
            if is_scratch(architecture, number) {
                registers.forget(number);
            }
        }
        registers.set(stack_pointer(architecture), cfa);
        for (register, rule) in self.row.registers() {
            match self.value(register.0, rule, cfa)? {
                Some(value) => registers.set(register.0, value),
                None => registers.forget(register.0),
            }
        }
        let rule = self.row.register(gimli::Register(return_register));
        Ok(Unwound {
            return_address: registers.get(return_register),
            in_link_register: return_register == link(architecture)
                && matches!(rule, None | Some(RegisterRule::SameValue)),
            registers,
            cfa,
        })
    }

    /// The value a register had in the caller.
    fn value(
        &mut self,
        number: u16,
        rule: &RegisterRule<usize>,
        cfa: u64,
    ) -> Result<Option<u64>, End> {
        let size = if self.firmware.image.is_64 { 8 } else { 4 };
        let little_endian = self.firmware.image.little_endian;
        let encoding = self.encoding;
        Ok(match rule {
            RegisterRule::Undefined | RegisterRule::Architectural => None,
            RegisterRule::SameValue => self.frame.registers.get(number),
            RegisterRule::Offset(offset) => {
                let address = self.wrap(cfa.wrapping_add_signed(*offset));
                Some(read_word(self.memory, little_endian, address, size)?)
            }
            RegisterRule::ValOffset(offset) => Some(self.wrap(cfa.wrapping_add_signed(*offset))),
            RegisterRule::Register(other) => self.frame.registers.get(other.0),
            RegisterRule::Expression(expression) => {
                let expression = expression.get(self.section).map_err(damaged)?;
                let address = self
                    .context(Some(cfa))
                    .address(expression, encoding, Some(cfa))?;
                Some(read_word(self.memory, little_endian, address, size)?)
            }
            RegisterRule::ValExpression(expression) => {
                let expression = expression.get(self.section).map_err(damaged)?;
                Some(
                    self.context(Some(cfa))
                        .address(expression, encoding, Some(cfa))?,
                )
            }
            RegisterRule::Constant(value) => Some(*value),
        })
    }

    fn context(&mut self, cfa: Option<u64>) -> Context<'_, M> {
        Context {
            architecture: self.firmware.architecture(),
            little_endian: self.firmware.image.little_endian,
            registers: &self.frame.registers,
            memory: self.memory,
            cfa,
            frame_base: None,
            unit: None,
        }
    }

    fn wrap(&self, address: u64) -> u64 {
        if self.firmware.image.is_64 {
            address
        } else {
            address & 0xffff_ffff
        }
    }
}
