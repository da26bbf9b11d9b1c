//! Passwords in a file of htpasswd, by TLS.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::authority::Authority;
use super::store::must;
use super::{User, start};

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and htpasswd: run ./tests/all"]
fn passwords_are_shown_by_tls_and_only_the_right_one_opens() {
    let (user, authority) = (User::new(), Authority::new());
    let pair = authority.certify("127.0.0.1");
    let cert = user.write("server/tls.crt", &pair.cert).display().to_string();
    let key = user.write("server/tls.key", &pair.key).display().to_string();
    let lines = must(Command::new("htpasswd").args(["-nbB", "me", "canary-password"]));
    let file = user.write("server/htpasswd", lines).display().to_string();
    let registry = start(&user.path("server"), &["--tls", &cert, &key, "--htpasswd", &file]);
    let name = format!("{}/real/debian:v1", registry.address);
    let ca = user.write("ca.pem", &authority.pem).display().to_string();

    user.is_refused(&["--ca-file", &ca, &name], 5, "asks for a user and a password");
    for (password, is_right) in [("canary-wrong", false), ("canary-password", true)] {
        let auth = STANDARD.encode(format!("me:{password}"));
        let auths = json!({"auths": {&registry.address: {"auth": auth}}});
        let auth_file = user.write("auth.json", auths.to_string()).display().to_string();
        let args = ["-vvv", "--authfile", &auth_file, "--ca-file", &ca, &name];
        if is_right {
            user.pulls(&args);
        } else {
            user.is_refused(&args, 5, "the user or the password is wrong");
        }
    }
    user.store.assert_complete(&name);
}
