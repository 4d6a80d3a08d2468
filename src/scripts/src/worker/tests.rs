use super::*;
use crate::pipe::{Limits, MAX_MESSAGE, cut};
use bytes::{Bytes, BytesMut};
use gateway::{Calls, Function};

fn load(program: u64, source: &str) -> Request {
    let source = Bytes::copy_from_slice(source.as_bytes());
    Request::Load { program: ProgramId(program), name: "t.js".to_owned(), source, limits: Limits::default() }
}

fn calls(seq: u64, program: u64, inputs: &[&'static [u8]]) -> Request {
    let inputs = inputs.iter().copied().map(Bytes::from_static).collect();
    let program = ProgramId(program);
    let calls =
        Calls { program, function: Function::DecodeUplink, device: "".into(), port: 1, wall_ms: 0, inputs };
    Request::Calls { seq, calls }
}

/// What a worker says to this input.
fn said(requests: &[Request]) -> Vec<Response> {
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);
    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut input = Vec::new();
    requests.iter().for_each(|request| request.encode(&mut input).unwrap());
    let kept = Kept::default();
    run(&input[..], kept.clone(), vec!["x".to_owned()]).unwrap();
    let mut output = BytesMut::from(&kept.0.lock().unwrap()[..]);
    std::iter::from_fn(|| cut(&mut output).unwrap()).map(|m| Response::decode(&m).unwrap()).collect()
}

fn called(seq: u64, index: u32, result: Result<&str, CallFailure>) -> Response {
    let result = result.map(|json| Bytes::copy_from_slice(json.as_bytes()));
    Response::Called { seq, index, result, log: Vec::new() }
}

#[test]
fn each_request_is_answered_in_its_order_and_each_input_by_itself() {
    let throws = "function decodeUplink(i) { if (i.bytes[0] === 0) throw 'no'; return { data: i.bytes[0] } }";
    let responses = said(&[
        calls(1, 5, &[b""]),
        load(5, throws),
        calls(2, 5, &[b"\x01", b"\x00", b"\x03"]),
        load(6, "function"),
        calls(3, 6, &[b""]),
        Request::Unload(ProgramId(5)),
        calls(4, 5, &[b""]),
    ]);
    let [hello, rest @ ..] = &responses[..] else { panic!("nothing was said") };
    assert_eq!(*hello, Response::Hello(vec!["x".to_owned()]));
    let Response::Refused { program: ProgramId(6), why } = &rest[5] else { panic!("{rest:?}") };
    assert!(why.starts_with("SyntaxError"), "{why}");
    let mut rest = rest.to_vec();
    rest.remove(5);
    assert_eq!(
        rest,
        [
            called(1, 0, Err(CallFailure::Unknown)),
            Response::Loaded { program: ProgramId(5), shape: codecs::Shape::Payload },
            called(2, 0, Ok("{\"data\":1}")),
            called(2, 1, Err(CallFailure::Program("no".into()))),
            called(2, 2, Ok("{\"data\":3}")),
            called(3, 0, Err(CallFailure::Unknown)),
            called(4, 0, Err(CallFailure::Unknown)),
        ]
    );
}

#[test]
fn one_program_knows_nothing_of_another() {
    let one = "Object.prototype.leak = 1; globalThis.shared = 1; function Decoder() { return 1 }";
    let other = "function Decoder() { return [typeof shared, ({}).leak === undefined] }";
    let responses = said(&[load(1, one), load(2, other), calls(1, 1, &[b""]), calls(2, 2, &[b""])]);
    assert_eq!(responses[4], called(2, 0, Ok(r#"{"data":["undefined",true]}"#)));
}

#[test]
fn what_is_no_request_ends_the_worker() {
    assert!(run(&[0, 0, 0, 1, 77][..], io::sink(), Vec::new()).is_err());
    let too_long = u32::try_from(MAX_MESSAGE + 1).unwrap().to_be_bytes();
    assert!(run(&too_long[..], io::sink(), Vec::new()).is_err());
    assert!(run(io::empty(), io::sink(), Vec::new()).is_ok());
}
