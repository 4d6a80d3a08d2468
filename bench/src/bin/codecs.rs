//! What a codec costs by itself: `codecs [NAME [SECONDS]]` decodes each sample of this codec, or of all, again and again on
//! one thread, and prints a row of a table for each. No socket and no router takes part: bytes in, values and answer out.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bench::Failure;
use bench::cost::Process;
use bytes::BytesMut;
use codecs::{CODECS, Context, Def, Options, Sample, Up};

/// Frames that are handed over at once, as a full buffer of a busy connection.
const AT_ONCE: usize = 100;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seconds = args.get(1).and_then(|s| s.parse().ok()).unwrap_or(1.0);
    println!("| codec | sample | bytes | frames/s | CPU s per million |");
    println!("|---|---|---|---|---|");
    for def in CODECS.iter().filter(|def| args.first().is_none_or(|name| name == def.name)) {
        for sample in def.samples {
            match measure(def, sample, Duration::from_secs_f64(seconds)) {
                Ok(row) => println!("{row}"),
                Err(e) => {
                    eprintln!("{}: {}: {e}", def.name, sample.about);
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

fn measure(def: &Def, sample: &Sample, time: Duration) -> Result<String, Failure> {
    let bytes = codecs::hex::decode(sample.hex)?;
    let device = name(def, &bytes)?;
    let cx = Context { wall_ms: 1_700_000_000_000, device: device.as_deref(), token: "token" };
    let mut codec = (def.build)(&Options::default());
    let mut buf = BytesMut::new();
    let mut decode = || -> Result<u64, Failure> {
        for _ in 0..AT_ONCE {
            buf.extend_from_slice(&bytes);
        }
        let mut frames = 0;
        while let Some(frame) = codec.decode(&cx, &mut buf).map_err(|fault| fault.why.into_owned())? {
            std::hint::black_box(&frame);
            frames += 1;
        }
        Ok(frames)
    };
    for _ in 0..100 {
        decode()?;
    }
    let process = Process(std::process::id());
    let (begun, cpu) = (Instant::now(), process.cpu_ns()?);
    let mut frames = 0;
    while begun.elapsed() < time {
        frames += decode()?;
    }
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), process.cpu_ns()? - cpu);
    let (rate, cost) = (frames as f64 / wall, cpu as f64 / 1e3 / frames as f64);
    Ok(format!("| {} | {} | {} | {rate:.0} | {cost:.2} |", def.name, sample.about, bytes.len()))
}

/// The device that logs in in these bytes: what is measured is what it says after that.
fn name(def: &Def, bytes: &[u8]) -> Result<Option<String>, Failure> {
    let cx = Context { wall_ms: 0, device: None, token: "token" };
    let frame = (def.build)(&Options::default()).decode(&cx, &mut BytesMut::from(bytes));
    let frame = frame.map_err(|fault| fault.why.into_owned())?.unwrap_or_default();
    Ok(frame.up.iter().find_map(|up| match up {
        Up::Login(login) => Some(login.device.to_string()),
        _ => None,
    }))
}
