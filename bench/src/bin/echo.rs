//! The bare UDP echo: `echo ADDRESS [DEPTH]`. The physical limit of a server over UDP: one thread that sends each datagram
//! back. With DEPTH up to so many are received (`recvmmsg`) and sent (`sendmmsg`) by one call.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use bench::Failure;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

const BUFFER: usize = 2048;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let socket = UdpSocket::bind(args.next().ok_or("usage: echo ADDRESS [DEPTH]")?)?;
    match args.next() {
        None => one_by_one(&socket),
        Some(depth) => in_batches(&socket, depth.parse()?),
    }
}

fn one_by_one(socket: &UdpSocket) -> Result<(), Failure> {
    let mut buffer = [0; BUFFER];
    loop {
        let (n, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..n], from)?;
    }
}

fn in_batches(socket: &UdpSocket, depth: usize) -> Result<(), Failure> {
    let mut memory = vec![[0; BUFFER]; depth];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(depth, None);
    let mut answers = MultiHeaders::<SockaddrIn>::preallocate(depth, None);
    let mut came: Vec<(usize, Option<SockaddrIn>)> = vec![];
    loop {
        came.clear();
        let mut slices: Vec<_> = memory.iter_mut().map(|m| [IoSliceMut::new(m)]).collect();
        match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_WAITFORONE, None) {
            Ok(received) => came.extend(received.map(|m| (m.bytes, m.address))),
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(e.into()),
        }
        let slices: Vec<_> =
            memory.iter().zip(&came).map(|(m, (n, _))| [std::io::IoSlice::new(&m[..*n])]).collect();
        let addresses: Vec<_> = came.iter().map(|(_, address)| *address).collect();
        sendmmsg(socket.as_raw_fd(), &mut answers, &slices, &addresses, [], MsgFlags::empty())?;
    }
}
