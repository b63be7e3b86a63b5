//! The instructions of classic BPF, of which programs for the kernel are made (bpf(4) of the BSDs, linux/filter.h).
//!
//! A program has an accumulator, an index register and sixteen scratch words. A load beyond the end of a datagram ends it with
//! zero, and jumps only go forward.

use libc::sock_filter;

/// `SIP/`, with which every answer begins.
pub const SIP: u32 = u32::from_be_bytes(*b"SIP/");

/// Loads from here on count from the network header (`SKF_NET_OFF` of linux/filter.h).
pub const NETWORK_HEADER: u32 = -0x0010_0000_i32 as u32;

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("a classic instruction has 16 bits"), jt, jf, k }
}

pub fn load_word(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

pub fn load_length() -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0, 0, 0)
}

pub fn load_half(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, offset)
}

pub fn load_byte_at_index(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 0, 0, offset)
}

pub fn load(word: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_MEM, 0, 0, word)
}

pub fn load_index(value: u32) -> sock_filter {
    instruction(libc::BPF_LDX | libc::BPF_IMM, 0, 0, value)
}

pub fn load_index_from(word: u32) -> sock_filter {
    instruction(libc::BPF_LDX | libc::BPF_MEM, 0, 0, word)
}

pub fn store(word: u32) -> sock_filter {
    instruction(libc::BPF_ST, 0, 0, word)
}

pub fn store_index(word: u32) -> sock_filter {
    instruction(libc::BPF_STX, 0, 0, word)
}

pub fn operate(operation: u32, value: u32) -> sock_filter {
    instruction(libc::BPF_ALU | operation | libc::BPF_K, 0, 0, value)
}

pub fn add_index() -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0, 0, 0)
}

pub fn jump_if_equal(value: u32, jt: u8, jf: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, value)
}

pub fn jump_if_at_least(value: u32, jt: u8, jf: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, jt, jf, value)
}

pub fn jump(over: u32) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, over)
}

pub fn give() -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_A, 0, 0, 0)
}

/// Copies the accumulator to the index register.
pub fn to_index() -> sock_filter {
    instruction(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0)
}

pub fn load_value(value: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_IMM, 0, 0, value)
}

/// Compares the accumulator with the index register.
pub fn jump_if_at_least_index(jt: u8, jf: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_X, jt, jf, 0)
}

pub fn give_value(value: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

/// A program whose jumps name places that come later.
#[derive(Debug, Default)]
pub struct Program {
    code: Vec<sock_filter>,
    /// Jumps that lead to a label, by their places.
    jumps: Vec<(usize, Label)>,
    /// Where each label stands, once it is reached.
    places: Vec<Option<usize>>,
}

/// A place of a [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

impl Program {
    /// A label whose place is not known yet.
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Appends instructions.
    pub fn extend(&mut self, code: impl IntoIterator<Item = sock_filter>) {
        self.code.extend(code);
    }

    /// Appends a jump to a label that is placed later.
    pub fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.code.push(jump(0));
    }

    /// Here is the place of a label.
    pub fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.code.len());
    }

    /// The program with its jumps.
    ///
    /// # Panics
    /// If a label that is jumped to has no place behind the jump, which is a mistake of whoever wrote the program.
    #[must_use]
    pub fn finish(mut self) -> Vec<sock_filter> {
        for (from, Label(label)) in self.jumps {
            let over =
                self.places[label].and_then(|to| to.checked_sub(from + 1)).expect("jumps only go forward");
            self.code[from].k = u32::try_from(over).expect("programs are short");
        }
        self.code
    }
}
