use super::*;
use proptest::prelude::*;

fn requests() -> Vec<Request> {
    let calls = |function| Calls {
        program: ProgramId(7),
        function,
        device: "d1".into(),
        port: 2,
        wall_ms: 1_700_000_000_000,
        inputs: vec![Bytes::from_static(b"\x01\x02"), Bytes::new()],
    };
    let functions = [Function::DecodeUplink, Function::EncodeDownlink, Function::Decode, Function::Encode];
    let conventions = [
        Convention::DecodeUplink,
        Convention::EncodeDownlink,
        Convention::DecodeDownlink,
        Convention::NormalizeUplink,
    ];
    let mut all = vec![
        Request::Load {
            program: ProgramId(u64::MAX),
            name: "größe".to_owned(),
            source: Bytes::from_static(b"function decode() {}"),
            limits: Limits::default(),
        },
        Request::Unload(ProgramId(1)),
    ];
    all.extend(functions.map(|function| Request::Calls { seq: 9, calls: calls(function) }));
    all.extend(conventions.map(|function| Request::Example {
        seq: 1,
        program: ProgramId(2),
        function,
        input: Bytes::from_static(b"{}"),
    }));
    all
}

fn responses() -> Vec<Response> {
    let results = [
        Ok(Bytes::from_static(b"{\"data\":1}")),
        Err(CallFailure::Program("it threw".into())),
        Err(CallFailure::Limit("100 ms".into())),
        Err(CallFailure::Suspended),
        Err(CallFailure::Unknown),
        Err(CallFailure::Busy),
    ];
    let mut all = vec![
        Response::Hello(vec!["no seccomp".to_owned()]),
        Response::Loaded { program: ProgramId(1), shape: Shape::Payload },
        Response::Loaded { program: ProgramId(1), shape: Shape::Stream },
        Response::Refused { program: ProgramId(1), why: "line 3".to_owned() },
    ];
    all.extend(results.map(|result| Response::Called {
        seq: 3,
        index: 4,
        result,
        log: vec!["a".to_owned(), String::new()],
    }));
    all
}

#[test]
fn what_is_written_is_read_again() {
    let mut pipe = Vec::new();
    requests().iter().for_each(|request| request.encode(&mut pipe).unwrap());
    let mut buf = BytesMut::from(&pipe[..]);
    for request in requests() {
        let message = cut(&mut buf).unwrap().unwrap();
        assert_eq!(Request::decode(&message), Ok(request));
    }
    assert_eq!(cut(&mut buf), Ok(None));

    let mut pipe = Vec::new();
    responses().iter().for_each(|response| response.encode(&mut pipe).unwrap());
    let mut from = &pipe[..];
    for response in responses() {
        let message = read(&mut from).unwrap().unwrap();
        assert_eq!(Response::decode(&message), Ok(response));
    }
    assert!(read(&mut from).unwrap().is_none());
}

#[test]
fn a_message_cut_off_anywhere_is_awaited_and_its_body_is_garbled() {
    for request in requests() {
        let mut pipe = Vec::new();
        request.encode(&mut pipe).unwrap();
        for end in 0..pipe.len() {
            assert_eq!(cut(&mut BytesMut::from(&pipe[..end])), Ok(None));
        }
        for end in 4..pipe.len() {
            assert_eq!(Request::decode(&Bytes::copy_from_slice(&pipe[4..end])), Err(Garbled), "{request:?}");
        }
    }
}

#[test]
fn a_message_that_is_too_long_is_neither_written_nor_awaited() {
    let source = Bytes::from(vec![0; MAX_MESSAGE]);
    let load =
        Request::Load { program: ProgramId(1), name: String::new(), source, limits: Limits::default() };
    let mut pipe = vec![1, 2, 3];
    assert_eq!(load.encode(&mut pipe), Err(Garbled));
    assert_eq!(pipe, [1, 2, 3]);
    let length = u32::try_from(MAX_MESSAGE + 1).unwrap().to_be_bytes();
    assert_eq!(cut(&mut BytesMut::from(&length[..])), Err(Garbled));
    assert!(read(&mut &length[..]).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_panic_or_a_large_list(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = Request::decode(&bytes);
        let _ = Response::decode(&bytes);
    }
}
