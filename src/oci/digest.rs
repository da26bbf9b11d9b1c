use std::fmt;
use std::hash::{Hash, Hasher as StdHasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::error::Error;

/// A hash function that may name a blob.
///
/// Registries use `sha256`, rarely `sha512` (image specification, "Registered algorithms");
/// `blake3` is for blobs that are put into the store by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
    /// BLAKE3 with its default output of 32 bytes.
    Blake3,
}

impl Algorithm {
    /// Every algorithm, in the order of their directories on disk.
    pub const ALL: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3];

    /// The name used in digests and as the directory under `blobs/`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
            Algorithm::Blake3 => "blake3",
        }
    }

    /// The length of a digest, in bytes.
    pub fn digest_len(self) -> usize {
        match self {
            Algorithm::Sha256 | Algorithm::Blake3 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    /// A running hash of this algorithm.
    pub fn hasher(self) -> Hasher {
        Hasher(match self {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
            Algorithm::Blake3 => State::Blake3(Box::new(blake3::Hasher::new())),
        })
    }

    /// The digest of bytes that are all in memory.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or_else(|| {
            Error::InvalidDigest {
                text: name.to_owned(),
                reason: "the algorithm is none of sha256, sha512, blake3",
            }
        })
    }
}

/// The name of a blob: an algorithm and the hash of the blob's bytes.
///
/// A value of this type was parsed strictly, so its text is safe as a file name. It is the only
/// thing in this crate that becomes a path under `blobs/`.
///
/// ```
/// use layerstore::Digest;
///
/// let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// let digest: Digest = text.parse()?;
/// assert_eq!(digest.to_string(), text);
/// assert!("sha256:../../etc/passwd".parse::<Digest>().is_err());
/// # Ok::<(), layerstore::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Digest {
    algorithm: Algorithm,
    /// The first `algorithm.digest_len()` bytes are the hash, the rest is zero.
    bytes: [u8; 64],
}

impl Digest {
    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw hash: 32 or 64 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.digest_len()]
    }

    /// The hash in lower-case hexadecimal: the blob's file name.
    pub fn hex(&self) -> String {
        // No look into a table, so that the compiler does many at once: this names every file.
        let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
        let mut text = vec![0; 2 * self.algorithm.digest_len()];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.as_bytes()) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
        }
        // Such digits are always UTF-8.
        String::from_utf8(text).unwrap_or_default()
    }

    /// A digest from an algorithm and the hexadecimal text that stands for its hash.
    pub fn from_hex(algorithm: Algorithm, hex: &str) -> Result<Digest, Error> {
        let invalid = |reason| Error::InvalidDigest { text: format!("{algorithm}:{hex}"), reason };
        if hex.len() != 2 * algorithm.digest_len() {
            return Err(invalid("the hash has the wrong length for its algorithm"));
        }
        let (mut bytes, mut seen) = ([0; 64], 0);
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (high, low) = (NIBBLES[usize::from(pair[0])], NIBBLES[usize::from(pair[1])]);
            seen |= high | low;
            *byte = high << 4 | low;
        }
        match seen {
            0..=0xf => Ok(Digest { algorithm, bytes }),
            _ => Err(invalid("the hash is not lower-case hexadecimal")),
        }
    }

    pub(crate) fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Digest {
        let mut bytes = [0; 64];
        bytes[..hash.len()].copy_from_slice(hash);
        Digest { algorithm, bytes }
    }
}

/// What each byte stands for as a digit; more than `0xf` if it is none.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [0xff; 256];
    let mut nibble = 0;
    while nibble < 16 {
        nibbles[b"0123456789abcdef"[nibble] as usize] = nibble as u8;
        nibble += 1;
    }
    nibbles
};

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Digest {}

impl Hash for Digest {
    fn hash<H: StdHasher>(&self, state: &mut H) {
        self.algorithm.hash(state);
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Digest {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.algorithm, self.as_bytes()).cmp(&(other.algorithm, other.as_bytes()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::InvalidDigest { text: text.to_owned(), reason };
        let (algorithm, hex) =
            text.split_once(':').ok_or_else(|| invalid("it is not of the form algorithm:hex"))?;
        let algorithm = algorithm
            .parse()
            .map_err(|_| invalid("the algorithm is none of sha256, sha512, blake3"))?;
        Digest::from_hex(algorithm, hex)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A running hash; what [`Algorithm::hasher`] makes.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
            State::Blake3(state) => {
                state.update(bytes);
            }
        }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::from_hash(Algorithm::Sha256, &state.finalize()),
            State::Sha512(state) => Digest::from_hash(Algorithm::Sha512, &state.finalize()),
            State::Blake3(state) => {
                Digest::from_hash(Algorithm::Blake3, state.finalize().as_bytes())
            }
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Sha256(_) => "Hasher(sha256)",
            State::Sha512(_) => "Hasher(sha512)",
            State::Blake3(_) => "Hasher(blake3)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let cases = [
            (Algorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                Algorithm::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
            (Algorithm::Blake3, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
        ];
        for (algorithm, hex) in cases {
            assert_eq!(algorithm.digest(b"abc").to_string(), format!("{algorithm}:{hex}"));
            assert_eq!(Digest::from_hex(algorithm, hex).unwrap(), algorithm.digest(b"abc"));
        }
    }

    #[test]
    fn hostile_digests_are_refused() {
        let good = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let hostile = [
            String::new(),
            ":".to_owned(),
            "sha256".to_owned(),
            "sha256:".to_owned(),
            good.to_owned(),
            format!(":{good}"),
            format!("sha256:{}", &good[1..]),
            format!("sha256:{good}0"),
            format!("sha256:{}", good.to_uppercase()),
            format!("SHA256:{good}"),
            format!("sha256: {}", &good[1..]),
            format!("sha256:{good}\n"),
            format!("sha256:{good}\0"),
            format!("sha512:{good}"),
            format!("md5:{}", &good[..32]),
            format!("sha256+b64:{good}"),
            "sha256:../../../../../../../../../../../../../../../../../../../../etc".to_owned(),
            format!("sha256:/{}", &good[1..]),
            format!("sha256:{}é", &good[2..]),
            format!("sha256:{}", "g".repeat(64)),
            format!("../sha256:{good}"),
            format!("sha256/..:{good}"),
        ];
        for text in hostile {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was taken for a digest");
        }
    }

    proptest::proptest! {
        #[test]
        fn text_round_trips(bytes: [u8; 32]) {
            let digest = Algorithm::Sha256.digest(&bytes);
            proptest::prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        }

        #[test]
        fn parsing_never_panics_and_is_strict(text in "\\PC*") {
            if let Ok(digest) = text.parse::<Digest>() {
                proptest::prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
