//! What can be wrong with a TPM, in words that help.

use std::{io, path::PathBuf};

use tpm2_protocol::data::{TpmRc, TpmRcBase};

/// Why a TPM did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// No TPM.
    #[error(
        "there is no TPM at {}: switch it on in the machine's firmware, and see what the kernel says of it \
         (journalctl -k -g tpm)",
        device.display()
    )]
    Absent {
        /// Where it was looked for.
        device: PathBuf,
    },
    /// The TPM is there and can't be spoken with.
    #[error("can't speak with the TPM at {}", device.display())]
    Device {
        /// Where.
        device: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key is of another TPM, or of this one before it was cleared.
    #[error(
        "the TPM does not know this host's key: the TPM was cleared, the machine's board or its disk comes from \
         another machine, or the key's file is damaged; with `selvedge-host enroll --again` the host makes a new key \
         and asks as a new host"
    )]
    OtherTpm,
    /// The owner hierarchy can't be used.
    #[error(
        "the TPM's owner hierarchy is closed ({code}): take its password away (tpm2_changeauth -c owner, in the \
         package tpm2-tools), or keep the key in a file (orchestrator.key = \"file\" in host.toml)"
    )]
    Closed {
        /// What the TPM said.
        code: String,
    },
    /// Too many wrong passwords, by whomever.
    #[error(
        "the TPM is locked after wrong passwords: wait, or end it with tpm2_dictionarylockout --clear-lockout (in the \
         package tpm2-tools)"
    )]
    LockedOut,
    /// No.
    #[error("the TPM refused {command} with {code}")]
    Refused {
        /// The command.
        command: &'static str,
        /// What the TPM said.
        code: String,
    },
    /// Not an answer to what was asked.
    #[error("what answers in place of the TPM does not speak TPM 2.0 (to {command})")]
    Nonsense {
        /// The command.
        command: &'static str,
    },
}

impl TpmError {
    pub(super) fn refused(command: &'static str, code: TpmRc) -> Self {
        let text = code.to_string();
        match (command, code.base()) {
            (_, TpmRcBase::Lockout) => Self::LockedOut,
            (
                LOAD,
                TpmRcBase::Integrity | TpmRcBase::Sensitive | TpmRcBase::Size | TpmRcBase::Insufficient,
            ) => Self::OtherTpm,
            (
                CREATE_PRIMARY,
                TpmRcBase::BadAuth | TpmRcBase::AuthFail | TpmRcBase::Hierarchy | TpmRcBase::AuthUnavailable,
            ) => Self::Closed { code: text },
            _ => Self::Refused { command, code: text },
        }
    }
}

pub(super) const CREATE_PRIMARY: &str = "CreatePrimary";
pub(super) const LOAD: &str = "Load";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_tpm_become_words_that_help() {
        let code = |value: u32| TpmRc::try_from(value).unwrap();
        // TPM_RC_INTEGRITY of the first parameter, TPM_RC_BAD_AUTH of the first session, TPM_RC_LOCKOUT.
        assert!(matches!(TpmError::refused(LOAD, code(0x1df)), TpmError::OtherTpm));
        assert!(matches!(
            TpmError::refused(CREATE_PRIMARY, code(0x9a2)),
            TpmError::Closed { .. }
        ));
        assert!(matches!(
            TpmError::refused("Sign", code(0x921)),
            TpmError::LockedOut
        ));
        let other = TpmError::refused("Create", code(0x2c3)).to_string();
        assert!(
            other.contains("Create") && other.contains("TPM_RC_HASH"),
            "{other}"
        );
    }
}
