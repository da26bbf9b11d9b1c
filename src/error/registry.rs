/// One entry of the `errors` that a registry answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryMessage {
    /// The code, as `MANIFEST_UNKNOWN`.
    pub code: String,
    /// The message for people; may be empty.
    pub message: String,
}
