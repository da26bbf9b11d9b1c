//! Whether credentials are right, before they are kept.

use reqwest::Method;
use reqwest::header::HeaderMap;

use super::challenge::Challenge;
use super::http::{asks_for_proof, unexpected};
use super::origin::{Origin, Scheme, registry_url};
use super::session::Door;
use super::{Credentials, HttpRegistry, LoginKey};
use crate::error::{Error, Result};

impl HttpRegistry {
    /// Shows credentials to a registry (distribution specification, "Determining Support"), and
    /// says whether it asked for any: one that lets everybody in says nothing of their worth.
    ///
    /// # Errors
    ///
    /// [`Error::Unauthorized`] where it refuses them.
    pub async fn check_login(&self, key: &LoginKey, credentials: &Credentials) -> Result<bool> {
        let registry = key.registry();
        let plain = self.plain_http.contains(registry);
        let scheme = if plain { Scheme::Http } else { Scheme::Https };
        let place = registry_url(scheme, registry).and_then(|mut url| {
            url.set_path("/v2/");
            let origin = Origin::of(&url)?;
            Some((url, origin))
        });
        let (url, origin) = place.ok_or_else(|| Error::InvalidReference {
            text: registry.to_owned(),
            reason: "it is not a host that can be connected to".to_owned(),
        })?;
        let image = key.as_image();
        let door =
            Door { transport: &self.transport, origin: &origin, image: &image, repository: None };
        let headers = HeaderMap::new();
        let answer = self.transport.follow(&Method::GET, &url, &headers, None).await?;
        if !asks_for_proof(&answer, &origin) {
            return match answer.status().is_success() {
                true => Ok(false),
                false => Err(unexpected(answer).await),
            };
        }
        let challenge = Challenge::choose(answer.challenges(), &origin)
            .map_err(|why| door.closed(format!("it {why}")))?;
        answer.discard().await;
        let proof = self.sessions.of(credentials.clone()).answer(&door, challenge, None).await?;
        let answer = self.transport.follow(&Method::GET, &url, &headers, Some(&proof)).await?;
        match answer.status().is_success() {
            true => Ok(true),
            false if asks_for_proof(&answer, &origin) => {
                Err(door.refused(Some(&proof), &answer.into_messages().await))
            }
            false => Err(unexpected(answer).await),
        }
    }
}
