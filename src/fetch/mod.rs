//! Asking registries for images: the client side of the OCI distribution specification.
//!
//! [`RegistryPull`] is what a pull needs of a registry; [`HttpRegistry`] is the one that speaks
//! HTTP. Each of its calls is one attempt: [`retry`] repeats what may succeed when repeated, out of
//! a [`RetryBudget`] that a whole pull shares. [`AuthProvider`] says who to be at which registry.
//!
//! Answers are hostile until checked: every body is capped, every redirect is judged before it is
//! followed, and credentials stay with the scheme, host and port they were given for.
//!
//! Clients do not know the store: they hand out bytes. A [`Puller`] brings the two together.

mod answer;
mod auth;
mod auth_files;
mod blob_request;
mod blobs;
mod body;
mod builder;
mod challenge;
mod connections;
mod desk;
mod download;
mod fallback;
mod foreign;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gather;
mod heal;
mod http;
mod link;
mod listing;
mod local;
mod login;
mod lookup;
mod origin;
mod pace;
mod peer;
mod plan;
mod progress;
mod proxy;
mod pull;
mod pulled;
mod puller;
mod range;
mod redirect;
mod registry;
mod relay;
mod repair;
mod retry;
#[cfg(test)]
mod schedules;
mod session;
mod settings;
mod steps;
mod task;
mod token;
mod traffic;
mod transfer;
mod transport;
mod way;
mod work;
mod writer;

pub use auth::{Anonymous, AuthProvider, Credentials, Secret, StaticCredentials};
pub use auth_files::{AuthFiles, Keeper, LoginKey};
pub use builder::HttpRegistryBuilder;
pub use http::HttpRegistry;
pub use lookup::digest_of;
pub use origin::{Origin, Scheme};
pub use progress::{Event, Observer};
pub use proxy::Proxies;
pub use pull::{PullPolicy, Referrers};
pub use pulled::Pulled;
pub use puller::Puller;
pub use range::ByteRange;
pub use registry::{BlobBody, RawManifest, RegistryPull};
pub use repair::{Mended, RepairReport, Unmended};
pub use retry::{Retry, RetryBudget, RetryPolicy, is_transient, retry};
pub use settings::RegistrySettings;
pub use traffic::Traffic;
