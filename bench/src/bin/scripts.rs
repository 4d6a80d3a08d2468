//! Scripts in their worker: `scripts SECONDS WORKER…` starts the worker with this command, such as `tidegate
//! script-worker`, has it decode for so long with each script and each size of batch, and prints a line of Markdown for each.
//! A core is the worker's: the figure is what one of its seconds of CPU brings.

use std::fs;
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bench::Failure;
use bench::cost::Process;
use bytes::Bytes;
use gateway::{Calls, Function, ProgramId};
use scripts::pipe::{Limits, Request, Response, read};

struct Case {
    name: &'static str,
    file: &'static str,
    function: Function,
    input: &'static [u8],
}

/// Scripts from `etc/codecs` and from here, with what a device sends.
const CASES: &[Case] = &[
    Case {
        name: "climate: 4 bytes, 3 values",
        file: "../etc/codecs/climate.js",
        function: Function::DecodeUplink,
        input: &[0x64, 0xff, 0xba, 0x57],
    },
    Case {
        name: "type-length-value: 14 bytes, 4 values",
        file: "scripts/tlv.js",
        function: Function::DecodeUplink,
        input: &[1, 0x01, 99, 1, 0x67, 0, 215, 1, 0x68, 96, 1, 0x73, 0x27, 0x94],
    },
    Case {
        name: "type-length-value: 33 bytes, 8 values",
        file: "scripts/tlv.js",
        function: Function::DecodeUplink,
        input: &[
            1, 0x01, 99, 1, 0x67, 0, 215, 1, 0x68, 96, 1, 0x73, 0x27, 0x94, 1, 0x7d, 2, 0x13, 2, 0x67, 0xff,
            0xba, 1, 0x88, 6, 0x76, 0x5f, 0xf2, 0x96, 0x0a, 0, 3, 0xe8,
        ],
    },
    Case {
        name: "weather: a line of text, 5 values",
        file: "../etc/codecs/weather.js",
        function: Function::DecodeUplink,
        input: b"WS-0042,21.5,48,1013.2,3.4*",
    },
];

/// Inputs of a request, and requests on their way.
const BATCHES: &[(usize, usize)] = &[(1, 1), (1, 32), (16, 4), (64, 2)];

fn main() -> ExitCode {
    bench::finish("scripts", run(&bench::words()))
}

fn run(args: &[String]) -> Result<(), Failure> {
    let [seconds, worker @ ..] = args else { return Err("usage: scripts SECONDS WORKER…".into()) };
    let time = Duration::from_secs_f64(seconds.parse()?);
    println!(
        "| script | inputs a request × requests on their way | decodes a second of the worker's CPU | CPU s per million | decodes/s |"
    );
    println!("|---|---|---|---|---|");
    for case in CASES {
        for &(batch, window) in BATCHES {
            let mut worker = Worker::start(worker)?;
            worker.load(case)?;
            worker.decode(case, batch, window, time / 4)?;
            let (decodes, cpu, seconds) = worker.decode(case, batch, window, time)?;
            println!(
                "| {} | {batch} × {window} | **{:.0}** | {:.2} | {:.0} |",
                case.name,
                decodes / cpu,
                cpu * 1e6 / decodes,
                decodes / seconds,
            );
        }
    }
    Ok(())
}

struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker {
    fn start(command: &[String]) -> Result<Worker, Failure> {
        let [program, args @ ..] = command else { return Err("name the worker's command".into()) };
        let mut child =
            Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = child.stdin.take().zip(child.stdout.take()).ok_or("no pipes")?;
        let mut worker = Worker { child, input, output: BufReader::with_capacity(64 << 10, output) };
        match worker.next()? {
            Response::Hello(_) => Ok(worker),
            other => Err(format!("it began with {other:?}").into()),
        }
    }

    fn next(&mut self) -> Result<Response, Failure> {
        let message = read(&mut self.output)?.ok_or("the worker has ended")?;
        Ok(Response::decode(&message)?)
    }

    fn load(&mut self, case: &Case) -> Result<(), Failure> {
        let source = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(case.file))?.into();
        let (program, name) = (ProgramId(1), case.file.to_owned());
        self.ask(&Request::Load { program, name, source, limits: Limits::default() })?;
        match self.next()? {
            Response::Loaded { .. } => Ok(()),
            other => Err(format!("{}: {other:?}", case.file).into()),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<(), Failure> {
        let mut message = Vec::new();
        request.encode(&mut message)?;
        Ok(self.input.write_all(&message)?)
    }

    /// How many were decoded, the worker's CPU time, and the time.
    fn decode(
        &mut self,
        case: &Case,
        batch: usize,
        window: usize,
        time: Duration,
    ) -> Result<(f64, f64, f64), Failure> {
        let calls = Calls {
            program: ProgramId(1),
            function: case.function,
            device: "device".into(),
            port: 2,
            wall_ms: 1_767_225_600_000,
            inputs: vec![Bytes::from_static(case.input); batch],
        };
        let request = Request::Calls { seq: 1, calls };
        let process = Process(self.child.id());
        let (begin, cpu) = (Instant::now(), process.cpu_ns()? as f64 / 1e9);
        for _ in 0..window {
            self.ask(&request)?;
        }
        let mut decodes = 0;
        while begin.elapsed() < time {
            self.answers(batch)?;
            decodes += batch;
            self.ask(&request)?;
        }
        for _ in 0..window {
            self.answers(batch)?;
            decodes += batch;
        }
        Ok((decodes as f64, process.cpu_ns()? as f64 / 1e9 - cpu, begin.elapsed().as_secs_f64()))
    }

    fn answers(&mut self, batch: usize) -> Result<(), Failure> {
        for _ in 0..batch {
            match self.next()? {
                Response::Called { result: Ok(_), .. } => {}
                other => return Err(format!("{other:?}").into()),
            }
        }
        Ok(())
    }
}
