//! The few system calls that no safe interface of our dependencies covers: tap devices, a packet socket with a
//! filter, process descriptors, a session of one's own. This is the only file of the crate with `unsafe`; each
//! block says why it is sound.
#![allow(
    unsafe_code,
    reason = "system calls without a safe wrapper in our dependencies; see each block"
)]

use std::{
    fs::File,
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use tokio::io::unix::AsyncFd;

/// `struct ifreq` as far as these calls use it: a name and a union of which they write at most 16 bits or an int.
#[repr(C)]
struct InterfaceRequest {
    name: [libc::c_char; libc::IFNAMSIZ],
    value: libc::c_int,
    // The union in the kernel's structure is 24 bytes long.
    rest: [u8; 20],
}

impl InterfaceRequest {
    fn new(name: &str, value: libc::c_int) -> io::Result<Self> {
        let mut request = Self {
            name: [0; libc::IFNAMSIZ],
            value,
            rest: [0; 20],
        };
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "interface name is not 1 to 15 bytes long",
            ));
        }
        for (to, from) in request.name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        Ok(request)
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn interface_ioctl(fd: &impl AsRawFd, code: libc::Ioctl, request: &mut InterfaceRequest) -> io::Result<()> {
    // SAFETY: the descriptor is open; the structure has the size and layout of `struct ifreq` and outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_mut(request)) }).map(drop)
}

/// Makes a persistent tap device, or opens one that is there. It stays when the descriptor is closed.
pub(crate) fn tap_open(name: &str) -> io::Result<OwnedFd> {
    let tun: OwnedFd = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?
        .into();
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    interface_ioctl(&tun, libc::TUNSETIFF, &mut InterfaceRequest::new(name, flags)?)?;
    tap_persist(&tun, true)?;
    Ok(tun)
}

/// Says whether a tap device stays when its last descriptor is closed.
pub(crate) fn tap_persist(tap: &OwnedFd, persist: bool) -> io::Result<()> {
    // SAFETY: the descriptor is open; this call takes its argument by value.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(persist)) })
        .map(drop)
}

fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked and owned by nobody else.
    unsafe {
        let fd = check(libc::socket(
            libc::AF_INET,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            0,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The MTU of an interface in this network namespace.
pub(crate) fn interface_mtu(name: &str) -> io::Result<u32> {
    let mut request = InterfaceRequest::new(name, 0)?;
    interface_ioctl(&control_socket()?, libc::SIOCGIFMTU, &mut request)?;
    Ok(request.value.unsigned_abs())
}

/// Sets the MTU of an interface and switches it on.
pub(crate) fn interface_up(name: &str, mtu: u32) -> io::Result<()> {
    let socket = control_socket()?;
    let mtu = libc::c_int::try_from(mtu).map_err(|_| io::ErrorKind::InvalidInput)?;
    interface_ioctl(&socket, libc::SIOCSIFMTU, &mut InterfaceRequest::new(name, mtu)?)?;
    let mut request = InterfaceRequest::new(name, 0)?;
    interface_ioctl(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    request.value |= libc::IFF_UP;
    interface_ioctl(&socket, libc::SIOCSIFFLAGS, &mut request)
}

const fn op(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

/// `yes` and `no` are how many instructions to skip.
#[expect(clippy::cast_possible_truncation, reason = "instruction codes fit 16 bits")]
const fn jump(code: u32, k: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: yes,
        jf: no,
        k,
    }
}

const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// ARP, answers of DHCP servers, neighbour discovery; nothing else wakes this process.
static ADDRESS_TALK: [libc::sock_filter; 18] = [
    op(LOAD_HALF, 12),
    jump(EQUAL, 0x0806, 14, 0), // ARP: take
    jump(EQUAL, 0x0800, 0, 7),  // IPv4, else see IPv6
    op(LOAD_BYTE, 23),
    jump(EQUAL, 17, 0, 12), // UDP
    op(LOAD_HALF, 20),
    jump(ANY_BIT, 0x1fff, 10, 0), // no later fragment
    op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 14),
    op(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 14),
    jump(EQUAL, 67, 6, 7),     // from a DHCP server: take
    jump(EQUAL, 0x86dd, 0, 6), // IPv6
    op(LOAD_BYTE, 20),
    jump(EQUAL, 58, 0, 4), // ICMPv6
    op(LOAD_BYTE, 54),
    jump(EQUAL, 135, 1, 0), // neighbour solicitation: take
    jump(EQUAL, 136, 0, 1), // neighbour advertisement: take
    op(RETURN, 1600),
    op(RETURN, 0),
];

/// A packet socket that sees the talk about addresses on one interface, in both directions.
pub(crate) fn address_talk(interface: u32) -> io::Result<OwnedFd> {
    let length = |bytes: usize| libc::socklen_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput);
    // Protocol 0 takes no packet until the filter is in place and the socket is bound.
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(check(libc::socket(libc::AF_PACKET, kind, 0))?) };
    let mut filter = ADDRESS_TALK;
    let program = libc::sock_fprog {
        len: 18,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program points to `len` instructions that outlive the call; the kernel copies them.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&program).cast(),
            length(mem::size_of_val(&program))?,
        )
    })?;
    // SAFETY: the structure is plain data for which zero is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    address.sll_ifindex = i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    let size = length(mem::size_of_val(&address))?;
    // SAFETY: the address is a `sockaddr_ll` of the size given and outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), size) })?;
    Ok(socket)
}

/// A descriptor of a process; it becomes readable when the process ends, and never means another process.
pub(crate) fn process_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked and owned by nobody else.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, libc::PIDFD_NONBLOCK);
        let fd = check(libc::c_int::try_from(fd).unwrap_or(-1))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Ends a process at once. One that has ended already is fine.
pub(crate) fn process_kill(process: &OwnedFd) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open; a null pointer is what the call takes for "as kill(2) does".
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGKILL,
            none,
            0,
        )
    };
    match check(libc::c_int::try_from(result).unwrap_or(-1)) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Lets a command run in a session of its own, so that what ends ours (a terminal, a signal to the group)
/// does not end it.
pub(crate) fn own_session(command: &mut tokio::process::Command) {
    // SAFETY: between fork and exec only setsid(2) is called, which is safe there: it takes no lock and no memory.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
    }
}

/// A descriptor that can be waited for.
pub(crate) fn waitable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives the same open descriptor for as long as it lives, and it lives in the `AsyncFd`.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
