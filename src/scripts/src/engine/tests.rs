use super::*;

const UPLINK: Call<'_> = Call { device: "d1", port: 7, wall_ms: 1_700_000_000_000 };

fn load(source: &str) -> Program {
    Program::load("test.js", source.as_bytes(), Limits::default()).unwrap()
}

fn text(result: Result<Bytes, CallFailure>) -> Result<String, CallFailure> {
    result.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

fn call(program: &mut Program, function: Called, input: &[u8]) -> Result<String, CallFailure> {
    text(program.call(function, &UPLINK, input).0)
}

fn uplink(source: &str, payload: &[u8]) -> Result<String, CallFailure> {
    call(&mut load(source), Called::DecodeUplink, payload)
}

/// What an expression is, with `bytes` for the payload.
fn value(expression: &str, payload: &[u8]) -> String {
    let source = format!("function Decoder(bytes, port) {{ return {expression} }}");
    uplink(&source, payload).unwrap()
}

fn program_error(why: &str) -> Result<String, CallFailure> {
    Err(CallFailure::Program(why.into()))
}

mod conventions;
mod hostile;
mod prelude;
