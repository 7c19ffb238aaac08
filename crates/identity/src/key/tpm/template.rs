//! What keys are to be like, and what the public half of one says.

use tpm2_protocol::data::{
    Tpm2bDigest, Tpm2bPublic, TpmAlgId, TpmEccCurve, TpmaObject, TpmsEccParms, TpmsEccPoint, TpmsSchemeHash,
    TpmtEccScheme, TpmtKdfScheme, TpmtPublic, TpmtSymDef, TpmuAsymScheme, TpmuPublicId, TpmuPublicParms,
    TpmuSymKeyBits, TpmuSymMode,
};

/// The attributes that both keys have: made in this TPM, bound to it; using it is nothing that could be locked out.
fn attributes() -> TpmaObject {
    TpmaObject::FIXED_TPM
        | TpmaObject::FIXED_PARENT
        | TpmaObject::SENSITIVE_DATA_ORIGIN
        | TpmaObject::USER_WITH_AUTH
        | TpmaObject::NO_DA
}

fn p256(attributes: TpmaObject, symmetric: TpmtSymDef, scheme: TpmtEccScheme) -> TpmtPublic {
    TpmtPublic {
        object_type: TpmAlgId::Ecc,
        name_alg: TpmAlgId::Sha256,
        object_attributes: attributes,
        auth_policy: Tpm2bDigest::default(),
        parameters: TpmuPublicParms::Ecc(TpmsEccParms {
            symmetric,
            scheme,
            curve_id: TpmEccCurve::NistP256,
            kdf: TpmtKdfScheme::default(),
        }),
        unique: TpmuPublicId::Ecc(TpmsEccPoint::default()),
    }
}

/// The TPM's storage key: wraps other keys.
pub(super) fn storage_template() -> TpmtPublic {
    let aes = TpmtSymDef {
        algorithm: TpmAlgId::Aes,
        key_bits: TpmuSymKeyBits::Aes(128.into()),
        mode: TpmuSymMode::Aes(TpmAlgId::Cfb),
    };
    let attributes = attributes() | TpmaObject::RESTRICTED | TpmaObject::DECRYPT;
    p256(attributes, aes, TpmtEccScheme::default())
}

/// A host's key: signs with ECDSA over SHA-256.
pub(super) fn signing_template() -> TpmtPublic {
    let none = TpmtSymDef {
        algorithm: TpmAlgId::Null,
        key_bits: TpmuSymKeyBits::Null,
        mode: TpmuSymMode::Null,
    };
    let ecdsa = TpmtEccScheme {
        scheme: TpmAlgId::Ecdsa,
        details: TpmuAsymScheme::Hash(TpmsSchemeHash {
            hash_alg: TpmAlgId::Sha256,
        }),
    };
    p256(attributes() | TpmaObject::SIGN_ENCRYPT, none, ecdsa)
}

/// The uncompressed point of a P-256 key.
pub(super) fn point(public: &Tpm2bPublic) -> Option<Vec<u8>> {
    let TpmuPublicParms::Ecc(parameters) = &public.parameters else {
        return None;
    };
    let TpmuPublicId::Ecc(at) = &public.unique else {
        return None;
    };
    if parameters.curve_id != TpmEccCurve::NistP256 {
        return None;
    }
    let mut point = vec![4];
    for coordinate in [&at.x, &at.y] {
        // Some TPMs leave zeros at the front away.
        let zeros = 32_usize
            .checked_sub(coordinate.len())
            .filter(|&zeros| zeros < 32)?;
        point.resize(point.len() + zeros, 0);
        point.extend_from_slice(coordinate);
    }
    Some(point)
}
