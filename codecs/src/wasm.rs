//! Codecs in WebAssembly, in whatever language they were written: `codecs/README.md` documents what such a
//! module has to export.
//!
//! A module runs in an interpreter, in the thread that serves the connection, and each connection has an instance
//! of its own. What it may use up is counted: steps for each call, memory, bytes of a result. What it does wrong
//! costs a frame.

mod host;
mod instance;
mod result;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use wasmi::{Config, Engine, ExternType, FuncType, Linker, OperatorCost, ValType};

use crate::{Build, Codec, Options};
use host::Host;
use instance::Instance;

/// The version of what a module exports and imports.
const ABI: u32 = 1;
/// Larger files are not modules that somebody has written for a device.
const MAX_MODULE: usize = 4 << 20;
/// Calls within a module, one within the other; a codec has no need of deep ones.
const MAX_DEPTH: usize = 512;
/// Bytes of the values of these calls.
const MAX_STACK: usize = 64 << 10;
/// Steps of a call within a module: what it clears for its local variables costs more time than an instruction.
const CALL_STEPS: u8 = 64;

/// What a module may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of one call, roughly instructions. A million takes some milliseconds.
    pub fuel: u64,
    /// Bytes of memory of one instance, which is of one connection.
    pub memory: usize,
    /// Most bytes of a frame, if the listener says nothing else.
    pub max_frame: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { fuel: 2_000_000, memory: 4 << 20, max_frame: 64 << 10 }
    }
}

/// A module that can be run: compiled, and known to have what it must export.
pub struct Module {
    program: Arc<Program>,
}

/// What all instances of a module share.
struct Program {
    engine: Engine,
    module: wasmi::Module,
    linker: Linker<Host>,
    limits: Limits,
}

impl Module {
    /// Compiles the file's bytes, and makes one instance as a trial.
    pub fn load(bytes: &[u8], limits: Limits) -> Result<Module, String> {
        if bytes.len() > MAX_MODULE {
            return Err(format!("has {} bytes; {MAX_MODULE} are allowed", bytes.len()));
        }
        let engine = Engine::new(&config());
        let module = wasmi::Module::new(&engine, bytes).map_err(|e| e.to_string())?;
        let linker = host::linker(&engine)?;
        check_imports(&module)?;
        check_exports(&module)?;
        let program = Program { engine, module, linker, limits };
        Instance::try_out(&program)?;
        Ok(Module { program: Arc::new(program) })
    }
}

impl Build for Module {
    fn build(&self, options: &Options) -> Box<dyn Codec> {
        Box::new(Instance::new(Arc::clone(&self.program), options.clone()))
    }
}

fn config() -> Config {
    let mut cost = OperatorCost::default();
    for call in [
        &mut cost.call,
        &mut cost.call_indirect,
        &mut cost.return_call,
        &mut cost.return_call_indirect,
        &mut cost.memory_grow,
        &mut cost.table_grow,
    ] {
        *call = CALL_STEPS;
    }
    let mut config = Config::default();
    config
        .consume_fuel(true)
        .operator_cost(cost)
        .ignore_custom_sections(true)
        .set_max_recursion_depth(MAX_DEPTH);
    config.set_min_stack_height(1 << 10).set_max_stack_height(MAX_STACK).set_max_cached_stacks(2);
    // Of several results each branch would be a step and as many copies.
    config.wasm_multi_value(false);
    config
}

/// What is there for a module to import.
const IMPORTS: [(&str, &[ValType], &[ValType]); 4] = [
    ("log", &[ValType::I32, ValType::I32], &[]),
    ("wall_ms", &[], &[ValType::I64]),
    ("device", &[ValType::I32, ValType::I32], &[ValType::I32]),
    ("token", &[ValType::I32, ValType::I32], &[ValType::I32]),
];

fn check_imports(module: &wasmi::Module) -> Result<(), String> {
    for import in module.imports() {
        let (from, name) = (import.module(), import.name());
        let known = IMPORTS.iter().find(|(known, ..)| from == "tidegate" && *known == name);
        let Some((_, parameters, results)) = known else {
            return Err(format!("imports `{from}.{name}`, which is not there for a codec"));
        };
        check_type(&format!("its import `{name}`"), Some(import.ty()), parameters, results)?;
    }
    Ok(())
}

fn check_exports(module: &wasmi::Module) -> Result<(), String> {
    use ValType::{I32, I64};
    let export = |name: &str| module.get_export(name);
    match export("memory") {
        Some(ExternType::Memory(_)) => {}
        _ => return Err("exports no memory of the name `memory`".to_owned()),
    }
    check_type("`tidegate_abi`", export("tidegate_abi").as_ref(), &[], &[I32])?;
    check_type("`alloc`", export("alloc").as_ref(), &[I32], &[I32])?;
    check_type("`decode`", export("decode").as_ref(), &[I32, I32], &[I64])?;
    match export("encode") {
        None => Ok(()),
        encode => check_type("`encode`", encode.as_ref(), &[I32, I32], &[I64]),
    }
}

fn check_type(
    what: &str,
    ty: Option<&ExternType>,
    parameters: &[ValType],
    results: &[ValType],
) -> Result<(), String> {
    let wanted = FuncType::new(parameters.iter().copied(), results.iter().copied());
    match ty {
        Some(ExternType::Func(ty)) if *ty == wanted => Ok(()),
        Some(ExternType::Func(ty)) => Err(format!("{what} is {}, not {}", words(ty), words(&wanted))),
        Some(_) => Err(format!("{what} is no function")),
        None => Err(format!("exports no function {what}")),
    }
}

/// A function's type as people write it: `(i32, i32) -> i64`.
fn words(ty: &FuncType) -> String {
    let list = |types: &[ValType]| {
        let names: Vec<String> = types.iter().map(|ty| format!("{ty:?}").to_lowercase()).collect();
        names.join(", ")
    };
    let results = if ty.results().is_empty() { "nothing".to_owned() } else { list(ty.results()) };
    format!("({}) -> {results}", list(ty.params()))
}
