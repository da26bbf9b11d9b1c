//! Whether credentials are right, before they are kept.

use reqwest::Method;
use reqwest::header::HeaderMap;

use super::challenge::Challenge;
use super::http::{asks_for_proof, unexpected};
use super::session::Door;
use super::transport::Errand;
use super::{Credentials, HttpRegistry, LoginKey};
use crate::error::Result;

impl HttpRegistry {
    /// Shows credentials to a registry (distribution specification, "Determining Support"), and
    /// says whether it asked for any: one that lets everybody in says nothing of their worth.
    ///
    /// # Errors
    ///
    /// [`Error::Unauthorized`](crate::Error::Unauthorized) where it refuses them.
    pub async fn check_login(&self, key: &LoginKey, credentials: &Credentials) -> Result<bool> {
        let (endpoint, transport) = self.registries.origin_of(&key.as_image()).await?;
        let (url, origin, image) = (endpoint.api(), &endpoint.origin, &endpoint.image);
        let door = Door { transport: &transport, origin, image, repository: None };
        let errand = Errand::new(HeaderMap::new());
        let answer = transport.follow(&Method::GET, &url, &errand, None).await?;
        if !asks_for_proof(&answer, origin) {
            return match answer.status().is_success() {
                true => Ok(false),
                false => Err(unexpected(answer).await),
            };
        }
        let challenge = Challenge::choose(answer.challenges(), origin)
            .map_err(|why| door.closed(format!("it {why}")))?;
        answer.discard().await;
        let proof = self
            .registries
            .sessions()
            .of(credentials.clone())
            .answer(&door, challenge, None)
            .await?;
        let answer = transport.follow(&Method::GET, &url, &errand, Some(&proof)).await?;
        match answer.status().is_success() {
            true => Ok(true),
            false if asks_for_proof(&answer, origin) => {
                Err(door.refused(Some(&proof), &answer.into_messages().await))
            }
            false => Err(unexpected(answer).await),
        }
    }
}
