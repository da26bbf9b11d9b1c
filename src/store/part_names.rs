use super::layout::Layout;
use crate::error::Result;
use crate::oci::Digest;

/// The names of a blob's part and what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct PartNames {
    /// The bytes.
    pub(crate) part: String,
    /// Which of them are there, if not simply the first.
    pub(crate) state: String,
    /// Who has it.
    pub(crate) lock: String,
}

impl PartNames {
    pub(crate) fn of(digest: &Digest) -> PartNames {
        let stem = format!("{}-{}", digest.algorithm(), digest.hex());
        PartNames {
            part: format!("{stem}.part"),
            state: format!("{stem}.state"),
            lock: format!("{stem}.lock"),
        }
    }

    /// Removes the part and all that belongs to it. The lock, which must be held, goes last.
    pub(crate) fn unlink(&self, layout: &Layout) -> Result<()> {
        layout.parts.unlink(&self.state)?;
        layout.parts.unlink(&self.part)?;
        layout.parts.unlink(&self.lock)?;
        Ok(())
    }
}

/// Whose part, or what belongs to it, has this name.
pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    let (stem, kind) = name.rsplit_once('.')?;
    let (algorithm, hex) = stem.split_once('-')?;
    let known = matches!(kind, "part" | "state" | "lock");
    known.then(|| Digest::from_hex(algorithm.parse().ok()?, hex).ok())?
}
