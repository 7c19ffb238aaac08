//! One conversation with a TPM: a command, its answer.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use tpm2_protocol::{
    TpmWriter,
    basic::TpmUint32,
    constant::TPM_MAX_COMMAND_SIZE,
    data::{TpmRcBase, TpmRh, TpmSt, TpmsAuthCommand},
    frame::{TpmFrame, TpmResponse, TpmUnmarshalBody, tpm_marshal_command},
};

use super::TpmError;

/// Tag, size, code.
const HEADER: usize = 10;
/// For the socket of a software TPM. The kernel minds a real one's time itself.
const TIMEOUT: Duration = Duration::from_secs(30);

trait Channel: Read + Write + Send {}
impl<T: Read + Write + Send> Channel for T {}

/// An open TPM. What is loaded through `/dev/tpmrm0` goes when this is dropped.
pub(super) struct Device {
    path: PathBuf,
    channel: Box<dyn Channel>,
}

impl Device {
    /// Opens the kernel's device, or connects to the socket of a software TPM.
    pub(super) fn open(path: &Path) -> Result<Self, TpmError> {
        let channel = Self::channel(path).map_err(|source| {
            // ENXIO and ENODEV: there is a node, and no TPM behind it.
            match source.raw_os_error() {
                Some(6 | 19) => TpmError::Absent { device: path.into() },
                _ if source.kind() == io::ErrorKind::NotFound => TpmError::Absent { device: path.into() },
                _ => TpmError::Device {
                    device: path.into(),
                    source,
                },
            }
        })?;
        Ok(Self {
            path: path.into(),
            channel,
        })
    }

    fn channel(path: &Path) -> io::Result<Box<dyn Channel>> {
        if std::fs::metadata(path)?.file_type().is_socket() {
            let socket = UnixStream::connect(path)?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            socket.set_write_timeout(Some(TIMEOUT))?;
            return Ok(Box::new(socket));
        }
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    /// Sends a command whose handles, if any need it, are authorised with the empty password.
    pub(super) fn run<C: TpmFrame, R: TpmUnmarshalBody>(
        &mut self,
        name: &'static str,
        command: &C,
        authorised: bool,
    ) -> Result<R, TpmError> {
        let empty = TpmsAuthCommand {
            session_handle: TpmUint32::from(TpmRh::Pw.value()),
            ..TpmsAuthCommand::default()
        };
        let (tag, sessions) = match authorised {
            true => (TpmSt::Sessions, &[empty][..]),
            false => (TpmSt::NoSessions, &[][..]),
        };
        let nonsense = |_| TpmError::Nonsense { command: name };
        let mut buffer = [0; TPM_MAX_COMMAND_SIZE];
        let mut writer = TpmWriter::new(&mut buffer);
        tpm_marshal_command(command, tag, sessions, &mut writer).map_err(nonsense)?;
        let answer = self
            .exchange(writer.as_bytes())
            .map_err(|source| TpmError::Device {
                device: self.path.clone(),
                source,
            })?;
        let answer = TpmResponse::cast(&answer).map_err(|error| match error {
            // A code of no specification, or of the kernel's own.
            tpm2_protocol::TpmError::InvalidRc { value, .. } => TpmError::Refused {
                command: name,
                code: format!("{value:#010x}"),
            },
            other => nonsense(other),
        })?;
        let code = answer.rc().map_err(nonsense)?;
        if code.base() != TpmRcBase::Success {
            return Err(TpmError::refused(name, code));
        }
        answer.unmarshal().map_err(nonsense)
    }

    fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        // The kernel takes a command in one write.
        self.channel.write_all(command)?;
        let mut answer = vec![0; TPM_MAX_COMMAND_SIZE];
        let (mut had, mut wanted) = (0, HEADER);
        while had < wanted {
            let more = self.channel.read(&mut answer[had..])?;
            if more == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            had += more;
            if let Some(&[a, b, c, d]) = answer[..had].get(2..6) {
                let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                wanted = size.max(HEADER);
                if wanted > answer.len() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "an answer of more than 4 KiB",
                    ));
                }
            }
        }
        answer.truncate(had);
        if had > wanted {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an answer longer than it says",
            ));
        }
        Ok(answer)
    }
}
